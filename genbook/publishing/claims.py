"""Claims: what the book says about its results, checked beside the sentence that says it."""

from __future__ import annotations

import sys

import numpy as np
import paddle
from IPython.display import display

KEY = "claim"  # of a claim in the metadata of the output that shows it
ERRORS = 3  # standard errors that a random value must keep from its bound


def claim(says, value, *, above=None, below=None, equals=None, error=0.0):
    """Check a sentence of the page, and show how it came out. A false one stops nothing.

    says: words of the page, as they are in its source. value: a number or an array of any shape,
    every entry of which must be greater than `above` and less than `below`, or equal to `equals`.
    error: the standard errors of the entries, 0 for what is not random; an entry must keep three of
    them from its bounds. Bounds and errors may be arrays, too (broadcast). Raises ValueError where
    there is nothing to compare.
    """
    if (above is below is None) is (equals is None):
        raise ValueError("a claim needs a bound: above, below, both of them or equals")
    if equals is not None:
        above = below = equals
    low = -np.inf if above is None else above
    high = np.inf if below is None else below
    value, error, low, high = np.broadcast_arrays(*map(_float64, (value, error, low, high)))
    if value.size == 0 or (error < 0).any():
        raise ValueError("a claim needs a value, and no standard error is negative")
    with np.errstate(invalid="ignore"):  # infinite values
        room = np.minimum(value - low, high - value)
        bound = np.where(value - low < high - value, low, high)  # the nearer one
        holds = room == 0 if equals is not None else room > ERRORS * error  # false for nan, too
        unit = np.where(error > 0, error, np.maximum(np.abs(value), np.abs(bound)))
        margin = np.nan_to_num(room / np.where(unit > 0, unit, 1.0), nan=-np.inf)
    i = np.lexsort((margin.ravel(), holds.ravel()))[0]  # margins differ in unit where errors do
    found = float(value.flat[i]), float(error.flat[i]), float(margin.flat[i])
    display(Claim(says, *found, bool(holds.all())))


def _float64(values):
    """Numbers as an array; a tensor's may have a type that NumPy does not know, as bfloat16."""
    if isinstance(values, paddle.Tensor):
        values = values.astype("float64").numpy()
    return np.asarray(values, float)


class Claim:
    """How a claim came out: the entry nearest to its bound, and whether all entries hold.

    If some do not, it is the one of these that is farthest beyond.

    margin: how far this entry is from its bound, negative where it is beyond; in standard errors,
    or as a share of the larger of the two where the error is 0.
    """

    def __init__(self, says, value, error, margin, holds):
        self.says, self.value, self.error = says, value, error
        self.margin, self.holds = margin, holds

    def __repr__(self):
        holds = "holds" if self.holds else "DOES NOT HOLD"
        return f"{holds}: {self.says}\n    {self.found()} (margin {self.room()})"

    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/plain": repr(self)}, {KEY: vars(self)}

    def found(self):
        """The value as text, with its standard error."""
        return f"{self.value:.3g}" + (f" ± {self.error:.1g}" if self.error else "")

    def room(self):
        """The margin as text."""
        if self.error:
            return f"{self.margin:.1f} s.e."
        if self.holds and not self.margin:
            return "exact"
        return f"{self.margin:.0%}" if abs(self.margin) >= 0.01 else f"{100 * self.margin:.1g}%"


def shift_seeds(by):
    """Have everything that a page draws at random come from other seeds, till the process ends.

    This is how the claims are tried with other trainings: `by` is added to each seed that Paddle
    gets, and to those that pages and the training loop give to NumPy. The data stay as they are.
    """
    set_seed, default_rng = paddle.seed, np.random.default_rng

    def shifted_rng(value=None):
        caller = sys._getframe(1).f_globals.get("__name__")
        own = caller in ("__main__", "genbook.training.loop") and isinstance(value, int)
        return default_rng(value + by if own else value)

    def shifted_seed(seed):
        return set_seed((seed + by) % 2**64)

    paddle.seed = shifted_seed
    np.random.default_rng = shifted_rng
