"""How an answer is held against the right one: by what each usual mistake would give."""

import inspect

import numpy as np
import paddle


class Wrong(AssertionError):
    """What is wrong with an answer, in words."""


def report(name, check, *args):
    """Run a check of an answer, and print its words or "right" after this name."""
    try:
        check(*args)
    except Wrong as wrong:
        print(f"{name}: {wrong}")
    else:
        print(f"{name}: right")


def call(function, *args, name):
    """function(*args); Wrong says so where it is unwritten, or stops with an error."""
    try:
        result = function(*args)
    except Exception as error:
        reason = str(error).strip().splitlines() or [""]
        raise Wrong(f"{name} stops with {type(error).__name__}: {reason[-1]}") from error
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


def compare(found, expected, mistakes, name):
    """Nothing if `found` is `expected`, else Wrong: with the words for what it is.

    found, expected: float64 arrays. mistakes: maps the words for a mistake to the array
    that this mistake gives. name: what is compared, for the sentence where none fits.
    """
    if same(found, expected):
        return
    for words, wrong in mistakes.items():
        if same(found, wrong):
            raise Wrong(words)
    expect_shape(found, expected.shape, name)
    if not np.isfinite(found).all():
        raise Wrong(f"{name} holds numbers that are infinite or not a number")
    worst = np.unravel_index(np.abs(found - expected).argmax(), found.shape)
    where = f" at {[int(i) for i in worst]}" if worst else ""
    raise Wrong(f"{name} is {found[worst]:.4f}{where}, expected {expected[worst]:.4f}")


def check_standard_normal(eps, name):
    """Wrong unless `eps` looks like independent draws from N(0, 1).

    eps: [N, J] with thousands of rows. A right answer fails once in a million times.
    """
    n = eps.size
    for first, who in (eps[:1], "every row of the batch gets"), (eps[:, :1], "all of a row get"):
        if np.allclose(eps, first, atol=1e-5):
            raise Wrong(f"{name}: {who} the same noise; draw a new one for each entry")
    if eps.min() > -1e-3 and eps.max() < 1.001:
        raise Wrong(f"{name}: the noise is uniform on [0, 1); take a normal one, paddle.randn")
    mean, std, fourth = eps.mean(), eps.std(), (eps**4).mean()
    if abs(mean) > 5 / np.sqrt(n) or abs(std - 1) > 5 / np.sqrt(2 * n):
        raise Wrong(
            f"{name}: the noise has mean {mean:.2f} and standard deviation "
            f"{std:.2f}, expected 0 and 1"
        )
    if abs(fourth - 3) > 5 * np.sqrt(96 / n):
        raise Wrong(f"{name}: the noise is not normally distributed")


def differentiable(values):
    """Arrays as float32 tensors that gradients flow to."""
    return [paddle.to_tensor(v, dtype="float32", stop_gradient=False) for v in values]


def check_gradients(result, inputs, expected, name):
    """Wrong unless the sum of `result` has the gradients `expected`, a dict by name."""
    if paddle.is_tensor(result) and not result.stop_gradient:
        result.sum().backward()
    for (label, gradient), tensor in zip(expected.items(), inputs, strict=True):
        if tensor.grad is None:
            raise Wrong(
                f"{name}: no gradient reaches {label}; compute with tensors all the "
                "way, without detach, numpy or a random draw that depends on it"
            )
        compare(array(tensor.grad, name), gradient, {}, f"{name}: the gradient of {label}")
