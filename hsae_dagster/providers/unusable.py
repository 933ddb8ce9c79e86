"""What to do when a server answers and nothing of it can be used.

Belongs here: the sentence that ends a round or a stage, with the commonest reason and what to change. Does not belong
here: reading answers (`openai_replies` and whoever asked).
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hsae_dagster.errors import ProviderError
from hsae_dagster.providers.openai_replies import Reply
from hsae_dagster.providers.progress import commonest

if TYPE_CHECKING:
    from hsae_dagster.providers.openai_request import Client

# From the place of a request and its reply: why the reply holds nothing usable, or None.
Problem = Callable[[int, Reply], str | None]
_ADVICE = {
    "cut off": "The model needs more room: give it `thinking_tokens` in a file named by HSAE_MODELS, have it think "
    "less (`reasoning_effort` there), or ask another model",
    "stands in `reasoning": "The server takes the answer for thoughts: switch its parser for thoughts off, or the "
    "model's thinking, or ask another model",
    "all thought": "The model only thought: switch its thinking off, give it `thinking_tokens` in a file named by "
    "HSAE_MODELS, or ask another model",
    "empty": "See at the server why the model writes nothing, or ask another model",
    "refused": "Ask another model, or say in `interpretation.instructions` what the texts are",
    "content filter": "Ask another server or model, or leave such texts out",
    "usable JSON": "Ask a model that follows instructions better, or a server that enforces a JSON schema",
    "the phrase": "Ask a model that follows instructions better",
    "which was not asked": "Ask a model that follows instructions better, or lower `annotation.concepts_per_call`",
}
_OTHERWISE = "Remove the cause"


def reason_of(index: int, reply: Reply) -> str | None:
    """The reply's own reason, for whoever needs nothing further of it."""
    return reply.reason


def advice(reason: str) -> str:
    """What to change so that such a reply comes no more."""
    return next((told for words, told in _ADVICE.items() if words in reason), _OTHERWISE)


def nothing_came(client: "Client", problems: Sequence[str], which: str) -> ProviderError:
    """Several requests brought nothing usable, so the next ones will not either."""
    reason, times = commonest(problems)
    often = f"most often ({times} of {len(problems)})" if times < len(problems) else "each time"
    return ProviderError(
        f"{client.asker.name}: {len(problems)} {which} to {client.server.endpoint} brought nothing usable, {often} "
        f"because {reason}. {advice(reason)}, and run again. Nothing further is asked and every answer so far is kept."
    )


def require_some(client: "Client", problems: Sequence[str | None]) -> None:
    """Raise ProviderError if there were replies and each had a problem: a stage with none usable is not finished."""
    found = [problem for problem in problems if problem is not None]
    if problems and len(found) == len(problems):
        reason, times = commonest(found)
        raise ProviderError(
            f"{client.asker.name}: none of {len(found):,} answers of {client.server.endpoint} is usable, most often "
            f"({times:,} times) because {reason}. {advice(reason)}, then have them asked again with `hsae ask-again "
            "<dataset>` and run again."
        )
