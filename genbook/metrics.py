"""What the figures show, as numbers."""

import numpy as np
from scipy.spatial import cKDTree


def neighbour_agreement(codes, labels, k=10):
    """The share of the k nearest other codes with the same label, a mean over all.

    codes: [N, J]. labels: [N]. k: from 1 to N - 1. Returns a number in [0, 1]: 1 where
    the classes lie apart; where they are mixed at random, about the chance that two
    codes share a class. Raises ValueError for k out of range.
    """
    codes, labels = np.asarray(codes), np.asarray(labels)
    if not 1 <= k < len(codes):
        raise ValueError(f"k must be from 1 to {len(codes) - 1}, got {k}")
    _, index = cKDTree(codes).query(codes, k + 1)  # [N, k + 1]
    others = index != np.arange(len(codes))[:, np.newaxis]
    # Among identical codes a code may be missing from its own list; drop the last.
    others[others.all(axis=1), -1] = False
    neighbours = index[others].reshape(len(codes), k)
    return float((labels[neighbours] == labels[:, np.newaxis]).mean())


def empty_share(codes, drawn, radius=0.25):
    """The share of `drawn` codes that fall into a hole, far from all of `codes`.

    codes: [N, J]. drawn: [M, J]. Far is more than `radius` standard deviations of
    `codes`, measured in each dimension by itself, so that the share does not depend on
    the scale of the codes. Returns a number in [0, 1].
    """
    codes, drawn = np.asarray(codes), np.asarray(drawn)
    spread = codes.std(axis=0)
    spread[spread == 0] = 1.0  # a dimension that never changes needs no scale
    distance, _ = cKDTree(codes / spread).query(drawn / spread)
    return float((distance > radius).mean())
