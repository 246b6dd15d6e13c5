"""What the figures show, as numbers."""

import numpy as np
from scipy.spatial import cKDTree


def neighbour_agreement(codes, labels, k=10):
    """The share of the k nearest other codes that have the same label, a mean over all codes.

    codes: [N, J]. labels: [N]. k: from 1 to N - 1. Returns a number in [0, 1]: 1 where the classes
    lie apart; where they are mixed at random, about the chance that two codes share a class.
    Raises ValueError for k out of range.
    """
    codes, labels = np.asarray(codes), np.asarray(labels)
    if not 1 <= k < len(codes):
        raise ValueError(f"k must be from 1 to {len(codes) - 1}, got {k}")
    _, index = cKDTree(codes).query(codes, k + 1)  # [N, k + 1]
    others = index != np.arange(len(codes))[:, np.newaxis]
    # Among identical codes a code need not come first in its own list, or be in it at all.
    others[others.all(axis=1), -1] = False
    neighbours = index[others].reshape(len(codes), k)
    return float((labels[neighbours] == labels[:, np.newaxis]).mean())


def empty_share(codes, cells=15):
    """The share of cells without a code, in a grid over the box that holds the codes' bulk.

    codes: [N, 2]. The box reaches from the 2.5% to the 97.5% quantile in each dimension and is cut
    into cells x cells equal cells. Because the box follows the codes, the share does not depend on
    their scale. Returns a number in [0, 1).
    """
    low, high = np.quantile(np.asarray(codes), [0.025, 0.975], axis=0)
    counts, _, _ = np.histogram2d(*np.asarray(codes).T, bins=cells,
                                  range=list(zip(low, high, strict=True)))
    return float((counts == 0).mean())
