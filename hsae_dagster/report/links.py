"""Links into the Dagster UI, as markdown that it renders.

Belongs here: which address shows an asset's partition, an event or a run. Does not belong here: what is linked. The
addresses begin at the server's root, so that they work on every page and port.
"""

from datetime import datetime
from urllib.parse import quote, urlencode

from hsae_dagster.report.cards import escape_markdown


def link(words: str, address: str) -> str:
    """A link; the words show as themselves."""
    return f"[{escape_markdown(words)}]({address})"


def asset_address(asset: str, partition: str | None = None) -> str:
    """An asset's page, opened at a partition."""
    query = f"?{urlencode({'view': 'partitions', 'partition': partition}, quote_via=quote)}" if partition else ""
    return f"/assets/{quote(asset)}{query}"


def run_address(run_id: str) -> str:
    """A run's page."""
    return f"/runs/{quote(run_id, safe='')}"


def when(moment: str) -> str:
    """`2026-11-24 06:50 UTC` of an ISO 8601 moment."""
    return datetime.fromisoformat(moment).strftime("%Y-%m-%d %H:%M UTC")
