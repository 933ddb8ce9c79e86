"""Links into the Dagster UI, as markdown that it renders.

Belongs here: which address shows an asset's partition, an event or a run. Does not belong here: what is linked. The
addresses begin at the server's root, so that they work on every page and port; where a proxy serves the UI below a
path, HSAE_UI_URL names it when the links are written (they are part of a run's records).
"""

import os
from datetime import datetime
from urllib.parse import quote, urlencode

from hsae_dagster.errors import HsaeError
from hsae_dagster.report.cards import escape_markdown

REPORTS_PORT = 3001


def link(words: str, address: str) -> str:
    """A link; the words show as themselves."""
    return f"[{escape_markdown(words)}]({address})"


def asset_address(key: str, partition: str | None = None) -> str:
    """The page of an asset (`hsae/corpus`), opened at a partition."""
    query = f"?{urlencode({'view': 'partitions', 'partition': partition}, quote_via=quote)}" if partition else ""
    return f"{ui_root()}/assets/{quote(key)}{query}"


def card_partition(dataset: str, number: int) -> str:
    """Partition key of the card of one hypothesis, by its number everywhere: `reviews|h01` is the report's first."""
    return f"{dataset}|h{number:02d}"


def dataset_of_card(partition: str) -> str:
    """The dataset of a card's partition."""
    return partition.rpartition("|")[0]


def run_address(run_id: str) -> str:
    """A run's page."""
    return f"{ui_root()}/runs/{quote(run_id, safe='')}"


def ui_root() -> str:
    """What every address begins with: HSAE_UI_URL (a path such as `/dagster`, or a whole URL), by default nothing.

    Raises:
        HsaeError: the variable is neither.
    """
    root = os.environ.get("HSAE_UI_URL", "").strip().rstrip("/")
    if root and not root.startswith(("/", "http://", "https://")):
        raise HsaeError(
            f"HSAE_UI_URL is `{root}`. Set it to the path under which Dagster is served, such as /dagster, or to its "
            "whole address, such as https://example.org/dagster; or leave it out."
        )
    return root


def dagster_root() -> str:
    """What an address of Dagster begins with on a page that is not Dagster's own; `hsae ui` sets HSAE_DAGSTER_URL."""
    root, here = ui_root(), os.environ.get("HSAE_DAGSTER_URL", "").rstrip("/") or "http://127.0.0.1:3000"
    return root if root.startswith("http") else f"{here}{root}"


def report_address(dataset: str) -> str:
    """Where `hsae serve`, which `hsae ui` starts beside Dagster, shows a report; HSAE_REPORTS_URL moves it."""
    root = os.environ.get("HSAE_REPORTS_URL", "").strip().rstrip("/") or f"http://127.0.0.1:{REPORTS_PORT}"
    return f"{root}/{quote(dataset)}.html"


def when(moment: str) -> str:
    """`2026-11-24 06:50 UTC` of an ISO 8601 moment."""
    return datetime.fromisoformat(moment).strftime("%Y-%m-%d %H:%M UTC")
