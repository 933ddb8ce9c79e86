"""Which vectors may be compared.

Belongs here: the identity of a way of embedding. Does not belong here: computing vectors (providers) or storing them.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class EmbeddingSet:
    """Vectors that may be compared: made by one model, in one way.

    Attributes:
        model: provider and model.
        dimensions: length of a vector.
        set_id: hash of everything that shapes a vector (model, weights, dimensions, token limit, normalisation).
    """

    model: str
    dimensions: int
    set_id: str
