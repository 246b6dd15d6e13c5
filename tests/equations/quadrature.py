"""An integral over a clean number, for the checks whose data are mixtures of narrow normals."""

import numpy as np

NODES, WEIGHTS = np.polynomial.legendre.leggauss(40)
EDGES = np.linspace(-4, 4, 33)


def integral(f):
    """Of f from -4 to 4, by Gauss-Legendre quadrature in 32 pieces."""
    half = (EDGES[1] - EDGES[0]) / 2
    x = (EDGES[:-1, np.newaxis] + half * (NODES + 1)).ravel()
    return (f(x).reshape(-1, len(NODES)) @ WEIGHTS).sum() * half
