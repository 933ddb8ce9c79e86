"""Links into the UI: from the server's root, or from where a proxy puts it."""

import pytest

from hsae_dagster.errors import HsaeError
from hsae_dagster.report.page import asset_address, run_address


@pytest.mark.parametrize(
    ("told", "root"),
    [
        (None, ""),
        ("", ""),
        ("/", ""),
        ("/dagster/", "/dagster"),
        ("https://example.org/dagster", "https://example.org/dagster"),
    ],
)
def test_links_begin_where_the_ui_is_served(told: str | None, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HSAE_UI_URL", raising=False)
    if told is not None:
        monkeypatch.setenv("HSAE_UI_URL", told)
    assert run_address("a1") == f"{root}/runs/a1"
    assert asset_address("hsae/corpus", "a|b") == f"{root}/assets/hsae/corpus?view=partitions&partition=a%7Cb"


def test_what_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HSAE_UI_URL", "dagster")
    with pytest.raises(HsaeError, match="HSAE_UI_URL is `dagster`"):
        run_address("a1")
