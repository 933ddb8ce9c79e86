"""Would another random start have found the same neurons?

Belongs here: which neurons of one autoencoder are found again in another, by the texts on which they fire. Does not
belong here: whether the same neurons would be selected from other texts (`stability`).

A neuron is a finding about texts, so it is found again where some neuron of the other autoencoder fires on the same
ones; whether that has a like direction, or place, is no matter.
"""

import numpy as np
import scipy.sparse as sp

from hsae_dagster.core.phi import phi_matrix

# Firing on the same texts to this φ counts as the same neuron.
FOUND = 0.5


def found_again(codes: sp.csr_matrix, others: sp.csr_matrix) -> np.ndarray:
    """Largest φ of fired-or-not of each neuron with any neuron of another autoencoder over the same texts.

    Args:
        codes: (n, m) activations; only whether they differ from 0 counts.
        others: (n, o) those of the other autoencoder.

    Returns:
        (m,) float64; 0 where a neuron fires on no text or on all.
    """
    best: np.ndarray = phi_matrix(codes, others).max(axis=1, initial=0.0)
    return best
