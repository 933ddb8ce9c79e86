"""Would another random start have found the same neurons?

Belongs here: matching the neurons of two autoencoders of one size one to one. Does not belong here: whether the same
neurons would be selected from other texts (`stability`).

Neurons of equal meaning have equal decoder directions whatever their place, so places are matched by the assignment of
largest total cosine (Kuhn's Hungarian method), as is usual in comparing dictionaries of different seeds.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp


@dataclass(frozen=True)
class Match:
    """The partner of each neuron of the first autoencoder in the second.

    Attributes:
        partner: (m,) int64.
        cosine: (m,) of their decoder directions.
        correlation: (m,) of their activations over the same texts; 0 where one of them does not vary.
    """

    partner: np.ndarray
    cosine: np.ndarray
    correlation: np.ndarray


def match_seeds(
    directions: np.ndarray, others: np.ndarray, activations: sp.csr_matrix, other_activations: sp.csr_matrix
) -> Match:
    """Match one to one.

    Args:
        directions: (m, d) decoder directions of unit length.
        others: (m, d) those of another seed.
        activations: (n, m) over some texts.
        other_activations: (n, m) over the same.
    """
    from scipy.optimize import linear_sum_assignment

    cosines = directions @ others.T
    partner = linear_sum_assignment(cosines, maximize=True)[1]
    places = np.arange(len(partner))
    first, second = sp.csr_matrix(activations, dtype=np.float64), sp.csr_matrix(other_activations, dtype=np.float64)
    second = second[:, partner]
    means, squares = [], []
    for codes in (first, second):
        means.append(np.asarray(codes.mean(axis=0)).ravel())
        squares.append(np.asarray(codes.multiply(codes).mean(axis=0)).ravel())
    together = np.asarray(first.multiply(second).mean(axis=0)).ravel() - means[0] * means[1]
    spread = np.sqrt(np.maximum((squares[0] - means[0] ** 2) * (squares[1] - means[1] ** 2), 0.0))
    correlation = np.where(spread > 1e-12, together / np.where(spread > 1e-12, spread, 1.0), 0.0)
    return Match(partner.astype(np.int64), cosines[places, partner], correlation)
