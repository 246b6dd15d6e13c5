"""Checks for Task 2: the reparameterization and the KL divergence."""

import numpy as np
import paddle

from .compare import (
    Wrong,
    array,
    call,
    check_gradients,
    check_standard_normal,
    check_unchanged,
    compare,
    differentiable,
    expect_arguments,
    quarters,
    same,
    verdict,
)


def check_reparameterize(reparameterize, seed=0):
    """Wrong, with the reason, unless z = mu + sigma * eps, with sigma^2 = exp(logvar).

    reparameterize: maps mu [N, J], logvar [N, J] and eps [N, J] or None to z [N, J].
    seed: of the inputs.
    """
    expect_arguments(reparameterize, 3, "mu, logvar and eps (which may be None)")
    mu, logvar, eps = np.random.default_rng(seed).standard_normal((3, 7, 4))
    found, again = (array(_draw(reparameterize, mu, logvar, eps)[0], "z") for _ in range(2))
    if not same(found, again):
        _check_own_draw(reparameterize, mu, logvar)
        words = "reparameterize draws noise although it is given eps; draw only where eps is None"
        raise Wrong(words, 0.75)
    sigma = np.exp(0.5 * logvar)
    with np.errstate(invalid="ignore"):
        mistakes = {
            "sigma was taken for log-variance: logvar is log sigma^2, so that sigma is "
            "exp(0.5 * logvar) and not logvar itself": mu + logvar * eps,
            "the variance stands where sigma belongs: exp(logvar) is sigma^2, its root is "
            "exp(0.5 * logvar)": mu + sigma**2 * eps,
            "logvar was taken for the variance: sigma is exp(0.5 * logvar), not the root "
            "of logvar": mu + np.sqrt(logvar) * eps,
            "half of logvar is log sigma; its exponential is missing": mu + 0.5 * logvar * eps,
            "logvar was taken for the argument of a softplus; it is log sigma^2, so that sigma "
            "is exp(0.5 * logvar)": mu + np.logaddexp(0, logvar) * eps,
            "logvar was taken for the argument of a softplus that gives the variance; it is log "
            "sigma^2, so that sigma is exp(0.5 * logvar)": (
                mu + np.sqrt(np.logaddexp(0, logvar)) * eps
            ),
            "the sign of logvar is wrong: this divides by sigma": mu + eps / sigma,
            "eps is not scaled: z = mu + sigma * eps": (mu + eps, 0.25),
            "mu is missing: z = mu + sigma * eps": sigma * eps,
            "no noise was added: z = mu + sigma * eps": (mu, 0.25),
            "eps is missing: z = mu + sigma * eps": (mu + sigma, 0.25),
            "the noise is subtracted and not added: give z = mu + sigma * eps, so that "
            "everybody draws the same z from the same eps": (mu - sigma * eps, 0.75),
            "mu is multiplied as well: z = mu + sigma * eps": (mu + eps) * sigma,
        }
    inputs = {"mu": mu, "logvar": logvar, "eps": eps}
    compare(found, mu + sigma * eps, mistakes, "z", inputs)

    z, leaves, given = _draw(reparameterize, mu, logvar, eps)
    expected = {"mu": np.ones_like(mu), "logvar": 0.5 * sigma * eps}
    cut = verdict(check_gradients, z, leaves, expected, "reparameterize", 0.75)
    _check_own_draw(reparameterize, mu, logvar)
    if cut:
        raise cut
    check_unchanged(dict(zip(inputs, given, strict=True)), inputs.values())


def _draw(reparameterize, mu, logvar, eps):
    """z for arrays, with the tensors whose gradients count, and those that it was given."""
    leaves = differentiable([mu, logvar])
    noise = None if eps is None else paddle.to_tensor(eps, dtype="float32")
    given = [*(1 * leaf for leaf in leaves), noise]  # as from a network: not leaves themselves
    name, share = ("reparameterize", 0) if eps is not None else ("reparameterize without eps", 0.5)
    return call(reparameterize, *given, name=name, share=share), leaves, given


def _check_own_draw(reparameterize, mu, logvar):
    """Wrong unless z is normal, by noise of its own, and lets gradients through."""
    name = "reparameterize without eps"
    mu, logvar = (np.tile(a[:1], (4000, 1)) for a in (mu, logvar))
    z, leaves, _ = _draw(reparameterize, mu, logvar, None)
    drawn = array(z, "z") - mu
    check_standard_normal(drawn / np.exp(0.5 * logvar), name)
    check_gradients(z, leaves, {"mu": np.ones_like(mu), "logvar": 0.5 * drawn}, name)


def check_gaussian_kl(gaussian_kl, seed=0):
    """Wrong, with the reason, unless it is KL(N(mu, sigma^2) || N(0, I)) of each row.

    gaussian_kl: maps mu [N, J] and logvar [N, J], which is log sigma^2, to [N], summed
    over the J dimensions. seed: of the inputs.
    """
    expect_arguments(gaussian_kl, 2, "mu and logvar")
    mu, logvar = np.random.default_rng(seed).standard_normal((2, 6, 3))
    leaves = differentiable([mu, logvar])
    given = [1 * leaf for leaf in leaves]  # as from a network: not leaves themselves
    kl = call(gaussian_kl, *given, name="gaussian_kl")

    var, square = np.exp(logvar), mu**2
    right = 0.5 * (var + square - 1 - logvar)
    with np.errstate(invalid="ignore"):
        formulas = {
            "": (right, 1),
            "the factor 1/2 is missing": (2 * right, 0.75),
            "the term -1 is missing": (right + 0.5, 0.75),
            "the 1 has the wrong sign": (right + 1, 0.75),
            "the 1 stands outside of the sum; it counts once for each dimension": (
                right + 0.5 - 0.5 / mu.shape[1],
                0.75,
            ),
            "the sign is wrong, a KL is never negative": (-right, 0.5),
            "the sign is wrong and the factor 1/2 is missing": (logvar + 1 - var - square, 0.5),
            "sigma was taken for log-variance (the second argument is log sigma^2, so that "
            "sigma^2 is exp(logvar) and not logvar^2)": (
                0.5 * (logvar**2 + square - 1 - np.log(logvar**2)),
                0.5,
            ),
            "the variance was taken for log-variance (the second argument is log sigma^2)": (
                0.5 * (logvar + square - 1 - np.log(logvar)),
                0.5,
            ),
            "log sigma was taken for log-variance (the second argument is log sigma^2, "
            "which is twice log sigma)": (0.5 * (var**2 + square - 1 - 2 * logvar), 0.5),
            "sigma stands where sigma^2 belongs": (0.5 * (var**0.5 + square - 1 - logvar), 0.5),
            "log sigma stands where log sigma^2 belongs": (
                0.5 * (var + square - 1 - 0.5 * logvar),
                0.5,
            ),
            "mu is not squared": (0.5 * (var + mu - 1 - logvar), 0.5),
            "the term mu^2 is missing": (0.5 * (var - 1 - logvar), 0.5),
            "the term sigma^2 is missing": (0.5 * (square - 1 - logvar), 0.5),
            "the term log sigma^2 is missing": (0.5 * (var + square - 1), 0.5),
            "log sigma^2 has the wrong sign": (0.5 * (var + square - 1 + logvar), 0.5),
            "this is the divergence in the other direction, of N(0, I) from the code's": (
                0.5 * (1 / var + square / var - 1 + logvar),
                0.5,
            ),
        }
    asked = "the lab asks for the sum over dimensions, one number for each image"
    reductions = {
        "": (lambda k: k.sum(1), 1),
        f"this KL is averaged over the batch; {asked}": (lambda k: k.sum(1).mean(), 0.75),
        f"this KL is averaged over the dimensions; {asked}": (lambda k: k.mean(1), 0.5),
        f"this KL is averaged over the batch and the dimensions; {asked}": (
            lambda k: k.mean(), 0.5
        ),
        f"this KL is summed over the batch as well; {asked}": (lambda k: k.sum(), 0.75),
        f"this KL is not summed over the dimensions; {asked}": (lambda k: k, 0.75),
        "this KL is summed over the batch, not over dimensions: take axis=1": (
            lambda k: k.sum(0), 0.5
        ),
        "this KL is averaged over the batch, not summed over dimensions: take the sum with "
        "axis=1": (lambda k: k.mean(0), 0.5),
        "this KL has the shape [N, 1], expected [N]: sum without keepdim": (
            lambda k: k.sum(1, keepdims=True), 0.75
        ),
    }  # fmt: skip
    pairs = [
        ("; ".join(filter(None, [way, formula])), (reduce(k), quarters(share * left)))
        for way, (reduce, share) in reductions.items()
        for formula, (k, left) in formulas.items()
    ]
    pairs.sort(key=lambda pair: pair[1][1], reverse=True)  # the smallest mistake that explains it
    mistakes = dict(pairs)
    del mistakes[""]
    compare(array(kl, "the KL"), right.sum(1), mistakes, "the KL")
    check_gradients(kl, leaves, {"mu": mu, "logvar": 0.5 * (var - 1)}, "gaussian_kl")
    check_unchanged(dict(zip(["mu", "logvar"], given, strict=True)), [mu, logvar])
