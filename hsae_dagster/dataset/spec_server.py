"""Where a language model of one stage is asked.

Belongs here: the fields of a `server` section. Does not belong here: reading keys or checking addresses
(`providers.openai_server`).
"""

from pydantic import Field

from hsae_dagster.dataset.section import Section


class ServerFields(Section):
    """Where this stage's model is asked; what is left out is as the environment says."""

    url: str | None = Field(None, description="Address of the server, `http://host:port/v1`; default OPENAI_BASE_URL.")
    key: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="Name of the environment variable with its key, never the key itself; default OPENAI_API_KEY, "
        "and none where `url` is given.",
    )
    timeout: float | None = Field(None, gt=0, description="Seconds without a byte after which a try is lost; 300.")
    concurrency: int | None = Field(
        None, ge=1, le=4096, description="Most requests under way at once; default HSAE_CONCURRENCY."
    )


# What says how a server is asked and not which one: it changes no result.
MANNER = {"server": {"key", "timeout", "concurrency"}}
