"""Checks for the exercises of the chapters whose answer is a function.

Each prints the name of the function and "right", or in words what is wrong with it.
"""

import functools

import numpy as np
import paddle
from scipy import special

from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule

from .compare import Wrong, array, call, compare, report


def _printed(check):
    """A check that prints its words and raises nothing."""

    @functools.wraps(check)
    def exercise(answer, *more):
        report(getattr(answer, "__name__", "answer"), check, answer, *more)

    return exercise


def _number(value):
    """One number as a float."""
    number = array(value, "the result")
    if number.size != 1:
        raise Wrong(f"a number is expected, not an array of the shape {list(number.shape)}")
    return number.item()


@_printed
def exercise_log_mean_exp(log_mean_exp):
    """Log-mean-exp of x [..., K] over its last axis: [...], also where exp(x) overflows."""
    x = np.random.default_rng(0).standard_normal((4, 6))
    right = np.log(np.exp(x).mean(1))
    mistakes = {
        "this is the logarithm of the sum; the mean has log K less": right + np.log(6),
        "this is the mean of x, with the logarithm inside the mean": x.mean(1),
        "the logarithm is missing": np.exp(right),
        "the mean is over all entries; take it over the last axis": np.log(np.exp(x).mean()),
        "the mean is over the first axis; take it over the last": np.log(np.exp(x).mean(0)),
        "the last axis is kept with one entry": right[:, None],
    }
    compare(array(call(log_mean_exp, x, name="it"), "the result"), right, mistakes, "it")
    for far in (1000.0, -1000.0):
        with np.errstate(all="ignore"):
            found = array(call(log_mean_exp, x + far, name="it"), "the result")
        if not np.isfinite(found).all():
            words = "since exp(x) does not fit a number: subtract the largest x first"
            raise Wrong(f"for x near {far:,.0f} it gives {found.flat[0]}, {words}")
        if not np.allclose(found, right + far, rtol=0, atol=1e-6):
            raise Wrong(
                f"for x near {far:,.0f} it is {found[0]:.4f}, expected "
                f"{right[0] + far:.4f}: add again what was subtracted"
            )


@_printed
def exercise_box_muller(box_muller):
    """Uniform u_1, u_2 [N] in (0, 1] to x, y [N], independent and standard normal."""
    u_1, u_2 = 1 - np.random.default_rng(0).random((2, 9))
    found = call(box_muller, u_1, u_2, name="it")
    if not isinstance(found, (tuple, list, np.ndarray)) or len(found) != 2:
        raise Wrong("it must return two things, x and y: the radius is used for both")
    found = np.stack([array(part, "the result") for part in found])

    def polar(square, angle):
        return np.sqrt(square) * np.stack([np.cos(angle), np.sin(angle)])

    square, angle = -2 * np.log(u_1), 2 * np.pi * u_2
    mistakes = {
        "the factor 2 in front of the logarithm is missing": polar(square / 2, angle),
        "the root is missing: this takes r^2 for r": np.sqrt(square) * polar(square, angle),
        "the angle is u_2 itself; it must go once around, 2 pi u_2": polar(square, u_2),
        "the angle goes half around: it is 2 pi u_2": polar(square, angle / 2),
        "u_1 and u_2 are exchanged": polar(-2 * np.log(u_2), 2 * np.pi * u_1),
    }
    right = polar(square, angle)
    if not np.allclose(found, right[::-1]):  # sine first is as good
        compare(found, right, mistakes, "(x, y)")


@_printed
def exercise_betas_of(betas_of):
    """Falling log-signal-to-noise ratios [T] to the betas [T] of their schedule."""
    levels = np.sort(np.random.default_rng(0).uniform(-6, 6, 9))[::-1]

    def before(alpha_bar):
        return np.append(1.0, alpha_bar[:-1])

    left, reverse, double = (special.expit(k * levels) for k in (1, -1, 2))
    right = 1 - left / before(left)
    mistakes = {
        "the sign is wrong: a large ratio means little noise": 1 - reverse / before(reverse),
        "the ratio was squared: lambda is log(alpha_bar / (1 - alpha_bar)), without a "
        "factor": 1 - double / before(double),
        "the first step is missing: before it, alpha_bar is 1": right[1:],
        "these are the alphas, 1 - beta": 1 - right,
        "these are alpha_bar; a beta is 1 less the quotient of two neighbours": left,
        "these are 1 - alpha_bar, the noise of all steps together": 1 - left,
        "the quotient is upside down": 1 - before(left) / left,
    }  # fmt: skip
    compare(array(call(betas_of, levels, name="it"), "the result"), right, mistakes, "beta")


@_printed
def exercise_best_model(model, diffusion, images):
    """The best `model` (x_t, t) for a distribution that consists of these images.

    diffusion: the GaussianDiffusion that it is written for, with what it predicts.
    images: [N, C, H, W] in [-1, 1].
    """
    rng = np.random.default_rng(0)
    for share in (0.5, 0.1, 0.02):
        step = int(np.abs(diffusion.alphas_cumprod - share).argmin())
        a = diffusion.alphas_cumprod[step]
        x_t = np.sqrt(a) * images[:3] + np.sqrt(1 - a) * rng.standard_normal(images[:3].shape)
        x_t, t = paddle.to_tensor(x_t, dtype="float32"), paddle.full([3], step, dtype="int64")
        found = array(call(model, x_t, t, name="it"), "the result")
        x_t = x_t.numpy().astype("float64")

        def answers(mean, x_t=x_t, a=a):
            noise = (x_t - np.sqrt(a) * mean) / np.sqrt(1 - a)
            return {"v": np.sqrt(a) * noise - np.sqrt(1 - a) * mean, "eps": noise, "x_0": mean}

        def mean(images, width=1 - a, x_t=x_t, a=a):
            flat = images.reshape(len(images), -1).astype("float64")
            far = ((x_t.reshape(3, 1, -1) - np.sqrt(a) * flat) ** 2).sum(2)
            q = special.softmax(-far / (2 * width), axis=1)
            return (q @ flat).reshape(x_t.shape), images[far.argmin(1)]

        kind = diffusion.prediction
        best, nearest = mean(images)
        mistakes = {
            f"this is {name}; the diffusion asks for {kind}": answer
            for name, answer in answers(best).items()
            if name != kind
        }
        others = {
            "this belongs to the nearest image; take the mean of all, weighted": nearest,
            "this belongs to the plain mean of the images; weigh them by q(i | x_t)": (
                np.broadcast_to(images.mean(0), x_t.shape)
            ),
            "the variance 1 - alpha_bar is missing in the exponent": mean(images, 1)[0],
            "the factor 1/2 is missing in the exponent": mean(images, (1 - a) / 2)[0],
            "the images are in [0, 1]; the diffusion works in [-1, 1]": mean((images + 1) / 2)[0],
        }
        mistakes |= {words: answers(other)[kind] for words, other in others.items()}
        right = answers(best)[kind]
        if not np.allclose(found, right, atol=2e-3):  # rounding, for weights in float32
            compare(found, right, mistakes, kind)


@_printed
def exercise_guided_in_between(guided_in_between):
    """(network, labels, scale, process) to a model guided for 0.1 < alpha_bar < 0.9."""
    process = GaussianDiffusion(cosine_beta_schedule(40))
    bar, w = process.alphas_cumprod, 1.5

    def network(x_t, t, labels=None):
        return 2 * x_t + (0 if labels is None else labels.reshape([-1, 1, 1, 1]))

    labels = paddle.to_tensor([1.0, 2.0, 4.0])
    model = call(guided_in_between, network, labels, w, process, name="it")
    x = np.random.default_rng(0).standard_normal((3, 1, 2, 2))
    x_t, y = paddle.to_tensor(x, dtype="float32"), labels.numpy().reshape(1, 3, 1, 1, 1)
    steps = [paddle.full([3], t, dtype="int64") for t in range(len(bar))]
    found = np.stack([array(call(model, x_t, t, name="its model"), "the result") for t in steps])

    def result(inside, outside=1.0, within=1 + w):
        """The label counts `within` where `inside` [T] holds, and `outside` elsewhere."""
        return 2 * x + np.where(inside.reshape(-1, 1, 1, 1, 1), within, outside) * y

    right = (bar > 0.1) & (bar < 0.9)
    mistakes = {
        "it guides at all steps": result(bar > 0),
        "it guides at no step": result(bar > 1),
        "it guides outside of the interval and not in it": result(~right),
        "outside of the interval the label must be passed on; here it is ignored": (
            result(right, 0.0)
        ),
        "the scale is used as the g of other programs; the label itself counts, too": (
            result(right, 1.0, w)
        ),
        "it also guides where alpha_bar is above 0.9": result(bar > 0.1),
        "it also guides where alpha_bar is below 0.1": result(bar < 0.9),
        "the interval is that of alpha_bar; here it is that of its root": (
            result((np.sqrt(bar) > 0.1) & (np.sqrt(bar) < 0.9))
        ),
    }
    compare(found, result(right), mistakes, "the prediction")


@_printed
def exercise_finds_one_step(deviation):
    """A process to a number near 0, far from 0 where DDIM takes the wrong step."""

    class WrongStep(GaussianDiffusion):
        def ddim_sample(self, model, x_t, t, t_prev, *more):
            return super().ddim_sample(model, x_t, t, t - 1, *more)

    betas = cosine_beta_schedule(1000)
    right, wrong = (
        _number(call(deviation, kind(betas, "v"), name="it"))
        for kind in (GaussianDiffusion, WrongStep)
    )
    if not abs(right) < 1e-3:
        raise Wrong(f"it gives {right:.4g} for a right process, expected 0 up to rounding")
    if not abs(wrong) > 0.01:
        raise Wrong(
            f"it gives {wrong:.4g} where the step goes wrong, as if it were right: does "
            "it call process.ddim_sample, with a step of more than one?"
        )


@_printed
def exercise_ring_all_reduce(ring_all_reduce):
    """R vectors [n] to their sum on each of R ranks, and the numbers that a rank sent."""
    for ranks, n in ((2, 8), (4, 12), (3, 7)):
        vectors = np.random.default_rng(0).standard_normal((ranks, n))
        result = call(ring_all_reduce, vectors.copy(), name="it")
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise Wrong("it must return two things: the vectors of all ranks, and what one sent")
        parts, sent = [array(v, "a vector") for v in result[0]], _number(result[1])
        if len({v.shape for v in parts}) > 1:
            raise Wrong(f"with {ranks} ranks and {n} numbers, the vectors differ in length")
        found = np.stack(parts)
        total = np.tile(vectors.sum(0), (ranks, 1))
        mistakes = {
            "the vectors are as they were": vectors,
            "this is the mean; the sum was asked": total / ranks,
            "only one rank has the sum": total[:1],
        }
        compare(found, total, mistakes, f"the sum of {ranks} vectors of {n} numbers")
        least = 2 * (ranks - 1) * n / ranks
        if sent >= (ranks - 1) * n > 2 * (ranks - 1) * np.ceil(n / ranks):
            words = "whole vectors: send a piece of n / R in each round"
            raise Wrong(f"a rank sends {sent:.0f} numbers, {words}")
        if not abs(sent - least) < 2 * ranks:
            raise Wrong(
                f"with {ranks} ranks and {n} numbers, each sends {sent:.0f}, expected about "
                f"{least:.0f}: two rounds of R - 1 pieces"
            )
