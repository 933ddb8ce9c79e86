"""Creating a batch so that whatever happens on the way, it is neither lost nor paid for twice.

Belongs here: the step from a record of what is to be submitted to the server's batch, and finding that batch again when
nobody heard the answer. Does not belong here: what a batch holds and its answers (`openai_batch`) or the records
themselves (`batches`).

The record is written first. It names the uploaded file of requests, which exactly one batch can have, so a batch whose
creation was not heard of (a killed process, a lost connection) is found in the server's list of batches.
"""

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.batches import BatchRecord, BatchRegister

if TYPE_CHECKING:
    from openai import AsyncOpenAI

# Before each look for a batch whose creation got no clear answer, and the next try; the last try is the last.
PAUSES = (1.0, 4.0, 15.0)
# The server's clock may be another than ours.
CLOCK_SECONDS = 86_400.0
PAGE = 100
# What servers without a list of batches answer.
_NO_LIST = (400, 404, 405, 422, 501)


async def create(connection: "AsyncOpenAI", record: BatchRecord, register: BatchRegister) -> BatchRecord:
    """Create the batch that a record intends; the record with the batch's name, both times written.

    The SDK would repeat a request that was carried out but whose answer got lost; here the batch is looked for first.

    Raises:
        openai.OpenAIError: the server refuses, and the record is gone; or it cannot be heard of, and the record stays
            for the next run to look for the batch.
    """
    import openai

    register.write(record)
    once = connection.with_options(max_retries=0)
    for pause in (*PAUSES, None):
        try:
            batch = await once.batches.create(
                input_file_id=record.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            return _known(record, batch.id, register)
        except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError):
            if pause is None:
                raise
            await asyncio.sleep(pause)
            if (found := await _batch_of(connection, record)) is not None:
                return _known(record, found, register)
        except openai.APIStatusError:
            register.remove(record)
            raise
    raise AssertionError


async def look_for(connection: "AsyncOpenAI", record: BatchRecord, register: BatchRegister) -> BatchRecord | None:
    """The record with the name of the batch it intended, written; None while the server lists no such batch.

    Raises:
        ProviderError: the server has no list of batches.
        openai.OpenAIError: it refuses.
    """
    import openai

    try:
        found = await _batch_of(connection, record)
    except openai.APIStatusError as error:
        if error.status_code not in _NO_LIST:
            raise
        raise ProviderError(
            f"Dataset `{record.dataset}`, {record.stage}: a run ended while it submitted {len(record.sizes):,} "
            f"requests to {record.server} as a batch. Whether that exists cannot be seen, for the server does not list "
            f"its batches (it answered {error.status_code}). If it has a batch of file {record.input_file_id}, cancel "
            f"it there; then remove {register.path(record)} and run again."
        ) from error
    return None if found is None else _known(record, found, register)


def _known(record: BatchRecord, batch_id: str, register: BatchRegister) -> BatchRecord:
    known = replace(record, batch_id=batch_id)
    register.write(known)
    return known


async def _batch_of(connection: "AsyncOpenAI", record: BatchRecord) -> str | None:
    # Newest first.
    async for batch in connection.batches.list(limit=PAGE):
        if batch.input_file_id == record.input_file_id:
            return batch.id
        if batch.created_at < record.intended_at - CLOCK_SECONDS:
            return None
    return None
