"""The sensor that collects batches and goes on with the runs that submitted them.

Belongs here: when to look and what to run then. Does not belong here: the Batch API (`providers.openai_batch`). Looking
costs nothing, but it starts runs, so like everything that does it is stopped until someone switches it on; without it,
running the stage again collects as well.
"""

from typing import TYPE_CHECKING

import dagster as dg

from hsae_dagster.errors import HsaeError
from hsae_dagster.providers.account import Account
from hsae_dagster.providers.batches import BatchRecord, BatchRegister
from hsae_dagster.providers.ledger import Ledger
from hsae_dagster.resources import Project

if TYPE_CHECKING:
    from hsae_dagster.providers.openai_server import Server

SECONDS = 60


@dg.sensor(
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.STOPPED,
    job_name="analyse_dataset",
    description="Collects batches of paid models that have ended and goes on with the runs that waited for them. "
    "Stopped until switched on; without it, running the stage again collects as well.",
)
def batch_answers(context: dg.SensorEvaluationContext, folders: Project) -> dg.SensorResult | dg.SkipReason:
    """Batches that have ended are collected into the ledger, and their runs go on where they waited."""
    register = BatchRegister(folders.results)
    under_way = [record for record in register.all() if not record.collected]
    if not under_way:
        return dg.SkipReason("no batch is under way")
    from hsae_dagster.providers.openai_server import server_from_environment

    try:
        server = server_from_environment(folders.model_server.environment)
        ended = [record for record in under_way if _collect(folders, register, record, server)]
    except HsaeError as error:
        return dg.SkipReason(f"{len(under_way)} batches are under way, but: {error}")
    left = {(record.dataset, record.stage) for record in register.all() if not record.collected}
    ready = {(r.dataset, r.stage): r for r in ended if (r.dataset, r.stage) not in left}
    if not ready:
        return dg.SkipReason(f"{len(under_way) - len(ended)} batches are under way")
    return dg.SensorResult(run_requests=[_request(folders, record) for record in ready.values()])


def _collect(project: Project, register: BatchRegister, record: BatchRecord, server: "Server") -> bool:
    from hsae_dagster.providers.model_table import profile_of
    from hsae_dagster.providers.openai_batch import collect
    from hsae_dagster.providers.openai_client import OpenAIClient, run_sync
    from hsae_dagster.providers.openai_server import Asker

    if record.server != server.endpoint:
        return False
    client = OpenAIClient(Asker("model", record.model, "lexical"), server)
    account = Account(Ledger(project.results), record.dataset, record.stage, record.run_id)

    async def look() -> bool:
        async with client.connect() as connection:
            return await collect(connection, server, record, account, profile_of(record.model), register)

    return run_sync(look())


def _request(project: Project, record: BatchRecord) -> dg.RunRequest:
    named = [dg.AssetKey.from_user_string(key) for key in record.selection or ()]
    selection = named or [project.key(record.stage)]
    return dg.RunRequest(
        run_key=record.batch_id,
        partition_key=record.dataset,
        asset_selection=selection,
        tags={".dagster/hsae_batch": record.batch_id},
    )
