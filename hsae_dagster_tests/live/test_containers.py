"""compose.yaml as far as a machine without Docker can tell: its commands, started here, make one Dagster."""

import shlex
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from hsae_dagster_tests.assets.workspace import NAMES, Workspace, tiny_texts
from hsae_dagster_tests.conftest import CHECKOUT
from hsae_dagster_tests.live.dagster_ui import DagsterUI
from hsae_dagster_tests.live.processes import free_port, make_home, processes, wait_for


def declared() -> dict[str, Any]:
    return dict(yaml.safe_load((CHECKOUT / "compose.yaml").read_text(encoding="utf-8")))


def test_only_this_machine_reaches_the_web_server_and_what_must_last_is_a_volume() -> None:
    compose = declared()
    published = [port for service in compose["services"].values() for port in service.get("ports", [])]
    assert published == ["127.0.0.1:3000:3000"]
    for service in compose["services"].values():
        mounted = {volume.split(":")[1] for volume in service["volumes"]}
        assert mounted == {"/project/data", "/project/results", "/project/.dagster_home"}
    dockerfile = (CHECKOUT / "Dockerfile").read_text(encoding="utf-8")
    assert "USER hsae" in dockerfile
    for copied in ("pyproject.toml", "constraints.txt", "hsae_dagster", "docker/workspace.yaml"):
        assert copied in dockerfile and (CHECKOUT / copied).exists()


@pytest.mark.slow
def test_the_three_commands_make_one_dagster_that_knows_the_assets(tmp_path: Path) -> None:
    compose, workspace = declared(), Workspace(tmp_path / "project")
    workspace.declare("ratings", tiny_texts())
    ports = {"4000": str(free_port()), "3000": str(free_port())}
    found = yaml.safe_load((CHECKOUT / "docker" / "workspace.yaml").read_text(encoding="utf-8"))
    (server,) = (each["grpc_server"] for each in found["load_from"])
    assert server["host"] == "code" and str(server["port"]) == "4000"
    server |= {"host": "127.0.0.1", "port": int(ports["4000"])}
    (tmp_path / "workspace.yaml").write_text(yaml.safe_dump(found), encoding="utf-8")

    def command(service: str) -> list[str]:
        words = shlex.split(compose["services"][service]["command"])
        words = shlex.split(words[2].split("exec ")[1]) if words[0] == "sh" else words
        here = ports | {"0.0.0.0": "127.0.0.1", "/opt/hsae/workspace.yaml": str(tmp_path / "workspace.yaml")}
        return [here.get(word, word) for word in words]

    home = make_home(tmp_path / "home")
    environment = {"HSAE_HOME": str(workspace.root), "DAGSTER_HOME": str(home), "HSAE_EXECUTOR": "in_process"}
    with processes(tmp_path / "logs", **environment) as running:
        code = running.start("code", *command("code"))
        health = compose["services"]["code"]["healthcheck"]["test"][1:]
        asked = [ports.get(word, word) for word in health]

        def healthy() -> bool:
            assert code.poll() is None, running.log("code")
            return running.start("health", *asked).wait(timeout=60) == 0

        wait_for("the code location is healthy", healthy, every=1.0)
        for service in ("webserver", "daemon"):
            running.start(service, *command(service))
        with dg.DagsterInstance.from_config(str(home)) as instance:
            live = DagsterUI(workspace, running, instance, f"http://127.0.0.1:{ports['3000']}")
            wait_for("the web server has loaded the code", live.is_loaded)
            wait_for("the daemon's sensor finds the dataset", lambda: instance.get_dynamic_partitions("hsae_datasets"))
            answer = live.ask("{ assetNodes { assetKey { path } } }")
            assert {f"hsae/{name}" for name in NAMES} <= {"/".join(n["assetKey"]["path"]) for n in answer["assetNodes"]}
