"""Which autoencoders of a dataset are still to be trained: each is a step of its own.

Belongs here: what is trained for a dataset, under which key of a step, and whether it is finished. Does not belong
here: the steps themselves (`assets.sae_checkpoints`) or training (`assets.autoencoders`).
"""

from dataclasses import dataclass

from hsae_dagster.assets.autoencoders import Lessons, choose_device, inputs_of, trained_on
from hsae_dagster.assets.sae_sizes import reference_sae
from hsae_dagster.dataset.saes import SAE, AutoSizes
from hsae_dagster.dataset.spec import DatasetSpec

# The step that trains and judges all sizes of the grid: they share one read of the embeddings, and each takes seconds.
GRID = "grid"


@dataclass(frozen=True)
class Training:
    """One autoencoder to be trained.

    Attributes:
        key: of its step: letters, digits and underscores.
        sae: its declaration.
    """

    key: str
    sae: SAE


def declared(spec: DatasetSpec, n_texts: int) -> list[SAE]:
    """The autoencoders that are named beforehand, imported ones included; none where the size is measured."""
    if isinstance(spec.saes, AutoSizes):
        return []
    return [reference_sae(n_texts)] if isinstance(spec.saes, str) else list(spec.saes)


def twins(spec: DatasetSpec, sae: SAE) -> list[SAE]:
    """The same autoencoder from each further seed that `sae_seeds` asks for."""
    return [sae.model_copy(update={"seed": sae.seed + further}) for further in range(1, spec.sae_seeds)]


def trainings(spec: DatasetSpec, n_texts: int) -> list[Training]:
    """Every autoencoder that is named beforehand and has to be trained, further seeds included."""
    found = []
    for place, sae in enumerate(declared(spec, n_texts), start=1):
        if sae.checkpoint:
            continue
        name = f"sae{place}_m{sae.m}_k{sae.k}"
        found.append(Training(name, sae))
        found += [Training(f"{name}_seed{twin.seed}", twin) for twin in twins(spec, sae)]
    return found


def unfinished(lessons: Lessons, n_texts: int) -> list[Training]:
    """Those of which no result is stored, from this dataset or another one; of equal ones the first."""
    left: dict[str, Training] = {}
    for training in trainings(lessons.stage.dataset.spec, n_texts):
        if trained_on(lessons, training.sae) is None:
            left.setdefault(inputs_of(lessons, training.sae, choose_device()).key, training)
    return list(left.values())
