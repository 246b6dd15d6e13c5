"""How an answer is held against the right one: by what each usual mistake would give."""

import contextlib
import inspect
import math
import random

import numpy as np
import paddle

# What the last line of an error means to somebody who writes Paddle for the first time.
HINTS = {
    "torch": "that is PyTorch's name, and this is Paddle: look for the function in Paddle's "
    "documentation",
    "no attribute": "look for its name in Paddle's documentation, which is not always PyTorch's",
    "unexpected keyword": "look for its name in Paddle's documentation, which is not always "
    "PyTorch's",
    "one element": "`if` takes one number, and each image has its own: take a mask or paddle.where",
}


class Wrong(AssertionError):
    """What is wrong with an answer, in words.

    share: the part of the points that a fair person would still give, from 0 to 1; with 1
    it is a remark that costs nothing.
    """

    def __init__(self, words, share=0.0):
        super().__init__(words)
        self.share = share


@contextlib.contextmanager
def untouched():
    """A block after which the generators of random numbers stand as before it."""
    paddles, numpys, pythons = paddle.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        paddle.set_rng_state(paddles)
        np.random.set_state(numpys)
        random.setstate(pythons)


def verdict(check, *args):
    """What a check finds wrong, a Wrong, or None; no draw of the student's notebook changes."""
    try:
        with untouched():
            check(*args)
    except Wrong as wrong:
        return wrong
    return None


def report(name, check, *args):
    """Run a check of an answer, and print its words or "right" after this name."""
    print(f"{name}: {verdict(check, *args) or 'right'}")


def marks(points, check, answer, cases):
    """The points out of `points` for an answer: the fewest that it earns in any case.

    check: called with the answer and a case, such as a seed. Prints what the answer lacks
    where that costs a part or nothing, and raises it, Wrong, where it costs all.
    """
    wrong = [verdict(check, answer, case) for case in cases]
    worst = min(filter(None, wrong), key=lambda w: w.share, default=None)
    if worst is None:
        return points
    if not worst.share:
        raise worst
    earned = round(float(points * worst.share), 1)
    print(f"{earned:g} of {points} points: {worst}")
    return earned


def together(*parts):
    """Raise what is wrong with several parts as one Wrong.

    parts: pairs of the share of the points that a part is worth and what is wrong with
    it, a Wrong or None. Whole quarters are given.
    """
    wrong = list(dict.fromkeys(str(w) for _, w in parts if w))
    if wrong:
        share = sum(part * (w.share if w else 1) for part, w in parts)
        raise Wrong("; ".join(wrong), quarters(share))


def quarters(share):
    """A share of the points, rounded down to quarters."""
    return math.floor(4 * share + 1e-9) / 4


def call(function, *args, name, share=0.0):
    """function(*args); Wrong says so where it is unwritten, or stops with an error."""
    try:
        result = function(*args)
    except Wrong:
        raise
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[-1]
        hint = "".join(f" ({words})" for part, words in HINTS.items() if part in reason)
        words = f"{name} stops with {type(error).__name__}: {reason}{hint}"
        raise Wrong(words, share) from error
    if result is None:
        raise Wrong(f"{name} returns nothing: is it still to be written?")
    return result


def expect_arguments(function, count, names):
    """Wrong where `function` cannot be called with `count` arguments in order."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        name = getattr(function, "__name__", "the function")
        raise Wrong(f"{name} must take {count} arguments: {names}") from None


def array(value, name):
    """A tensor, an array or a number as float64 numpy; Wrong for anything else."""
    numbers = value.numpy() if hasattr(value, "numpy") else value
    if not isinstance(numbers, (np.ndarray, np.number, float, int)):
        kind = type(value).__name__
        raise Wrong(f"{name} is a {kind}, expected a tensor of numbers")
    return np.asarray(numbers, np.float64)


def expect_shape(found, shape, name, reason=""):
    """Wrong, with a reason to be guessed, unless the array `found` has this shape."""
    if list(found.shape) != list(shape):
        raise Wrong(f"{name} has the shape {list(found.shape)}, expected {list(shape)}{reason}")


def same(a, b):
    """Whether two arrays have one shape and, up to rounding, the same entries."""
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-4, atol=1e-5, equal_nan=True)


def compare(found, expected, mistakes, name, inputs=None, terms=None):
    """Nothing if `found` is `expected`, else Wrong: with the words for what it is.

    found, expected: float64 arrays. mistakes: maps the words for a mistake to the array
    that this mistake gives, or to a pair of it and the share of the points that is left,
    else a half. name: what is compared, for the sentence where none fits. inputs: arrays
    by name that broadcast to `found`, of which that sentence tells one entry. terms:
    arrays [N, ...] by name, where the right answer is a sum of them, each with a scale of
    its own for each of N; a quarter is left for any other such sum.
    """
    if same(found, expected):
        return
    for words, mistake in mistakes.items():
        wrong, share = mistake if isinstance(mistake, tuple) else (mistake, 0.5)
        if same(found, wrong):
            raise Wrong(words, share)
    expect_shape(found, expected.shape, name)
    if not np.isfinite(found).all():
        raise Wrong(f"{name} holds numbers that are infinite or not a number")
    worst = np.unravel_index(np.abs(found - expected).argmax(), found.shape)
    told = {label: np.broadcast_to(a, found.shape)[worst] for label, a in (inputs or {}).items()}
    given = "".join(f", {label} = {value:.4g}" for label, value in told.items())
    sums = [_as_sum(values, terms, worst[0]) for values in (found, expected) if terms]
    if all(sums) and sums:
        raise Wrong(
            f"{name} is {sums[0]}{given.replace(',', ' for', 1)}, and {sums[1]} is right", 0.25
        )
    where = f" at {[int(i) for i in worst]}" if worst else ""
    raise Wrong(
        f"{name} is {found[worst]:.4f}{where}{given}, and {expected[worst]:.4f} is right: compute "
        "this one by hand, and compare your lines with the formula term by term"
    )


def _as_sum(values, terms, row):
    """What sum of the terms this row of the values is, in words; None where it is none."""
    columns = np.stack([term.reshape(len(values), -1) for term in terms.values()], axis=2)
    flat = values.reshape(len(values), -1, 1)
    scales = np.linalg.pinv(columns) @ flat  # [N, terms, 1]
    if np.allclose(columns @ scales, flat, rtol=1e-3, atol=1e-4):
        return " + ".join(f"{s:.4g} {n}" for s, n in zip(scales[row, :, 0], terms, strict=True))
    return None


def check_standard_normal(eps, name):
    """Wrong unless `eps` looks like independent draws from N(0, 1).

    eps: [N, J] with thousands of rows. A right answer fails once in a million times.
    """
    n = eps.size
    share = 0.5  # of the points, for what is right but for the noise
    for first, who in (eps[:1], "every row of the batch gets"), (eps[:, :1], "all of a row get"):
        if np.allclose(eps, first, atol=1e-5):
            raise Wrong(f"{name}: {who} the same noise; draw a new one for each entry", share)
    if eps.min() > -1e-3 and eps.max() < 1.001:
        raise Wrong(
            f"{name}: the noise is uniform on [0, 1); take a normal one, paddle.randn", share
        )
    mean, std, fourth = eps.mean(), eps.std(), (eps**4).mean()
    if abs(mean) > 5 / np.sqrt(n) or abs(std - 1) > 5 / np.sqrt(2 * n):
        raise Wrong(
            f"{name}: the noise has mean {mean:.2f} and standard deviation "
            f"{std:.2f}, expected 0 and 1",
            share,
        )
    if abs(fourth - 3) > 5 * np.sqrt(96 / n):
        raise Wrong(f"{name}: the noise is not normally distributed", share)


def differentiable(values):
    """Arrays as float32 tensors that gradients flow to."""
    return [paddle.to_tensor(v, dtype="float32", stop_gradient=False) for v in values]


def check_gradients(result, inputs, expected, name, share=0.25):
    """Wrong unless the sum of `result` has the gradients `expected`, a dict by name.

    share: of the points, for a result that is right but for them.
    """
    if paddle.is_tensor(result) and not result.stop_gradient:
        result.sum().backward()
    for (label, gradient), tensor in zip(expected.items(), inputs, strict=True):
        if tensor.grad is None:
            words = (
                f"{name}: no gradient reaches {label}; compute with tensors all the "
                "way, without detach, numpy or a random draw that depends on it"
            )
            raise Wrong(words, share)
        slope = array(tensor.grad, name)
        if not same(slope, gradient):
            words = f"{name}: the value is right, but not its gradient with respect to {label}"
            raise Wrong(f"{words}: is a part of it detached?", share)


def check_unchanged(tensors, values, share=0.75):
    """Wrong where a call has changed one of the tensors that it was given.

    tensors: by name. values: the arrays that they were made of.
    """
    for (name, tensor), value in zip(tensors.items(), values, strict=True):
        if not same(array(tensor, name), value):
            raise Wrong(
                f"the result is right, but {name} is changed in place, and who gave it may need "
                "it again: make a new tensor, without the functions whose names end in _",
                share,
            )
