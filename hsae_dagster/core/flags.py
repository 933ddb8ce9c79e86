"""Named doubts about a hypothesis.

Belongs here: the names, and the sentence that carries one. Does not belong here: when a doubt is raised.
"""

from typing import Final

TOO_FEW_POSITIVES: Final = "too few positives"
NO_VARIATION: Final = "no variation"
ONE_CLUSTER: Final = "one cluster"
MISSING_ANNOTATIONS: Final = "missing annotations"
PERFECT_PREDICTION: Final = "perfect prediction"
DOMINANT_CLUSTER: Final = "dominant cluster"
FEW_CLUSTERS: Final = "few clusters"
SIGN_CONFLICT: Final = "sign conflict"
REVERSED_BY_CONTROLS: Final = "reversed by controls"
REVERSED_BETWEEN_SUBGROUPS: Final = "reversed between subgroups"
VARIANCE_INFLATION: Final = "variance inflation"
REPEATED: Final = "repeated annotation"
COLLINEAR: Final = "collinear"
SEPARATION: Final = "separation"
NOT_CONVERGED: Final = "not converged"
TOO_FEW_ROWS: Final = "too few rows"
TOO_FEW_JUDGED: Final = "too few judged"


class Flag(str):
    """A doubt in words that also has a name by which tables can be filtered.

    Attributes:
        name: one of this module's constants.
    """

    __slots__ = ("name",)

    name: str

    def __new__(cls, name: str, sentence: str) -> "Flag":
        """The sentence, with its name."""
        flag = super().__new__(cls, sentence)
        flag.name = name
        return flag

    def __getnewargs__(self) -> tuple[str, str]:  # type: ignore[override]  # copies keep the name
        """What a copy is made from."""
        return self.name, str(self)


def flag_name(flag: str) -> str:
    """The name of a flag; of a bare sentence, the sentence."""
    return flag.name if isinstance(flag, Flag) else flag
