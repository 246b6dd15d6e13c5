"""What a check of an equation is made of: the mark `checks`, and the fixture `agree`.

    @pytest.mark.checks("eq-kl-diagonal", "KL divergence from the standard normal")
    def test_kl_diagonal(agree):
        \"\"\"The integral of the definition by quadrature on 200,001 points.\"\"\"
        agree(gaussian_kl(mu, logvar), integral, tolerance=1e-6)

The mark names the equation and, in its first check, says in a few words what it says. The
docstring says how the check was made, for the page "Verified", which shows both as MyST.
Where `genbook` computes the equation, the check calls that very function; what it is compared with
must come another way.
"""

import inspect
import math

import numpy as np
import pytest


def pytest_configure(config):
    config.addinivalue_line("markers", "checks(label, says): vouches for an equation of the book")


class Agreement:
    """Compares two ways to one result, fails where they differ, and keeps the worst deviation."""

    def __init__(self):
        self.compared = False
        self.worst = (-1.0, "", "")  # deviation / tolerance, and both in words

    def __call__(self, got, expected, tolerance):
        """Arrays or tensors of one shape differ by `tolerance` at most, entry by entry."""
        self.compared = True
        got, expected = (np.asarray(array, dtype=np.float64) for array in (got, expected))
        assert got.shape == expected.shape
        deviation = np.abs(got - expected).max()
        self._keep(
            deviation, tolerance, in_short(deviation), in_short(tolerance) if tolerance else "exact"
        )

    def in_mean(self, draws, expected, errors=5):
        """The mean of independent draws [N, ...] is `expected` [...] within `errors` of its
        standard errors."""
        self.compared = True
        draws, expected = np.asarray(draws, dtype=np.float64), np.asarray(expected)
        assert draws.shape[1:] == expected.shape
        standard_error = draws.std(axis=0, ddof=1) / math.sqrt(len(draws))
        deviation = (np.abs(draws.mean(axis=0) - expected) / standard_error).max()
        self._keep(deviation, errors, f"{deviation:.1f} s.e.", f"{errors} s.e.")

    def exactly(self, got, expected):
        """Two SymPy expressions, or two whole numbers or fractions, are the same."""
        import sympy

        self.compared = True
        difference = sympy.simplify(sympy.sympify(got) - sympy.sympify(expected))
        assert difference == 0, f"the difference is {difference}"
        self._keep(0.0, 0.0, "0", "exact")

    def _keep(self, deviation, tolerance, deviation_text, tolerance_text):
        differs = f"the two differ by {deviation_text}, the tolerance is {tolerance_text}"
        assert deviation <= tolerance, differs  # false for nan, too
        share = float(deviation / tolerance) if tolerance else 0.0
        self.worst = max(self.worst, (share, deviation_text, tolerance_text))


def in_short(number):
    """One digit and a power of ten: more would differ from machine to machine."""
    digit, power = f"{number:.0e}".split("e")
    return f"{digit}e{int(power)}" if number else "0"


@pytest.fixture
def agree(request, record_property):
    """The Agreement of one check; what it found goes into pytest's report."""
    mark = request.node.get_closest_marker("checks")
    how = inspect.getdoc(request.function)
    assert how, "this check has no docstring, which says how it was made"
    agreement = Agreement()
    yield agreement
    assert agreement.compared, "this check compares nothing"
    record_property("label", mark.args[0])
    record_property("says", mark.args[1] if len(mark.args) > 1 else "")
    record_property("how", " ".join(how.split()))
    record_property("deviation", agreement.worst[1])
    record_property("tolerance", agreement.worst[2])
