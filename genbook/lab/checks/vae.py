"""Checks for Task 2: the reparameterization and the KL divergence."""

import numpy as np
import paddle

from .compare import (
    Wrong,
    array,
    call,
    check_gradients,
    check_standard_normal,
    compare,
    differentiable,
    expect_arguments,
    same,
)


def check_reparameterize(reparameterize, seed=0):
    """Wrong, with the reason, unless z = mu + sigma * eps, with sigma^2 = exp(logvar).

    reparameterize: maps mu [N, J], logvar [N, J] and eps [N, J] or None to z [N, J].
    seed: of the inputs.
    """
    expect_arguments(reparameterize, 3, "mu, logvar and eps (which may be None)")
    rng = np.random.default_rng(seed)
    mu, logvar, eps = rng.standard_normal((3, 7, 4))
    sigma = np.exp(0.5 * logvar)

    inputs = differentiable([mu, logvar])
    noise = paddle.to_tensor(eps, dtype="float32")
    z = call(reparameterize, *inputs, noise, name="reparameterize")
    found = array(z, "z")
    if not same(found, array(reparameterize(*inputs, noise), "z")):
        raise Wrong(
            "reparameterize draws noise although it is given eps; draw only where eps is None"
        )
    with np.errstate(invalid="ignore"):
        mistakes = {
            "sigma was taken for log-variance: logvar is log sigma^2, so that sigma is "
            "exp(0.5 * logvar) and not logvar itself": mu + logvar * eps,
            "the variance stands where sigma belongs: exp(logvar) is sigma^2, its root is "
            "exp(0.5 * logvar)": mu + sigma**2 * eps,
            "logvar was taken for the variance: sigma is exp(0.5 * logvar), not the root "
            "of logvar": mu + np.sqrt(logvar) * eps,
            "half of logvar is log sigma; its exponential is missing": (mu + 0.5 * logvar * eps),
            "the sign of logvar is wrong: this divides by sigma": mu + eps / sigma,
            "eps is not scaled: z = mu + sigma * eps": mu + eps,
            "mu is missing: z = mu + sigma * eps": sigma * eps,
            "no noise was added: z = mu + sigma * eps": mu,
            "eps is missing: z = mu + sigma * eps": mu + sigma,
            "the noise is subtracted and not added: give z = mu + sigma * eps, so that "
            "everybody draws the same z from the same eps": mu - sigma * eps,
            "mu is multiplied as well: z = mu + sigma * eps": (mu + eps) * sigma,
        }
    compare(found, mu + sigma * eps, mistakes, "z")
    expected = {"mu": np.ones_like(mu), "logvar": 0.5 * sigma * eps}
    check_gradients(z, inputs, expected, "reparameterize")

    # Without eps it draws its own.
    many = [np.tile(row[:1], (4000, 1)) for row in (mu, logvar)]
    z = call(reparameterize, *differentiable(many), None, name="reparameterize without eps")
    drawn = (array(z, "z") - mu[:1]) / sigma[:1]
    check_standard_normal(drawn, "reparameterize without eps")


def check_gaussian_kl(gaussian_kl, seed=0):
    """Wrong, with the reason, unless it is KL(N(mu, sigma^2) || N(0, I)) of each row.

    gaussian_kl: maps mu [N, J] and logvar [N, J], which is log sigma^2, to [N], summed
    over the J dimensions. seed: of the inputs.
    """
    expect_arguments(gaussian_kl, 2, "mu and logvar")
    rng = np.random.default_rng(seed)
    mu, logvar = rng.standard_normal((2, 6, 3))
    inputs = differentiable([mu, logvar])
    kl = call(gaussian_kl, *inputs, name="gaussian_kl")

    var, square = np.exp(logvar), mu**2
    with np.errstate(invalid="ignore"):
        formulas = {
            "": 0.5 * (var + square - 1 - logvar),
            "the factor 1/2 is missing": var + square - 1 - logvar,
            "the sign is wrong, a KL is never negative": -0.5 * (var + square - 1 - logvar),
            "the sign is wrong and the factor 1/2 is missing": logvar + 1 - var - square,
            "sigma was taken for log-variance (the second argument is log sigma^2, so that "
            "sigma^2 is exp(logvar) and not logvar^2)": (
                0.5 * (logvar**2 + square - 1 - np.log(logvar**2))
            ),
            "the variance was taken for log-variance (the second argument is log sigma^2)": (
                0.5 * (logvar + square - 1 - np.log(logvar))
            ),
            "log sigma was taken for log-variance (the second argument is log sigma^2, "
            "which is twice log sigma)": 0.5 * (var**2 + square - 1 - 2 * logvar),
            "sigma stands where sigma^2 belongs": 0.5 * (var**0.5 + square - 1 - logvar),
            "log sigma stands where log sigma^2 belongs": 0.5 * (var + square - 1 - 0.5 * logvar),
            "mu is not squared": 0.5 * (var + mu - 1 - logvar),
            "the term mu^2 is missing": 0.5 * (var - 1 - logvar),
            "the term sigma^2 is missing": 0.5 * (square - 1 - logvar),
            "the term log sigma^2 is missing": 0.5 * (var + square - 1),
            "the term -1 is missing": 0.5 * (var + square - logvar),
            "the 1 has the wrong sign": 0.5 * (var + square + 1 - logvar),
            "log sigma^2 has the wrong sign": 0.5 * (var + square - 1 + logvar),
            "this is the divergence in the other direction, of N(0, I) from the code's": (
                0.5 * (1 / var + square / var - 1 + logvar)
            ),
        }
    asked = "the lab asks for the sum over dimensions, one number for each image"
    reductions = {
        "": lambda k: k.sum(1),
        f"this KL is averaged over the batch; {asked}": lambda k: k.sum(1).mean(),
        f"this KL is averaged over the dimensions; {asked}": lambda k: k.mean(1),
        f"this KL is averaged over the batch and the dimensions; {asked}": lambda k: k.mean(),
        f"this KL is summed over the batch as well; {asked}": lambda k: k.sum(),
        "this KL is not summed over the dimensions": lambda k: k,
        "this KL is summed over the batch, not over dimensions: take axis=1": lambda k: k.sum(0),
        "this KL is averaged over the batch, not summed over dimensions: take the sum with "
        "axis=1": lambda k: k.mean(0),
        "this KL has the shape [N, 1], expected [N]: sum without keepdim": (
            lambda k: k.sum(1, keepdims=True)
        ),
    }  # fmt: skip
    pairs = [(r, f) for r in reductions for f in formulas]
    pairs.sort(key=lambda pair: pair.count(""), reverse=True)  # first, one mistake alone
    mistakes = {"; ".join(filter(None, [r, f])): reductions[r](formulas[f]) for r, f in pairs}
    right = mistakes.pop("")
    compare(array(kl, "the KL"), right, mistakes, "the KL")
    expected = {"mu": mu, "logvar": 0.5 * (var - 1)}
    check_gradients(kl, inputs, expected, "gaussian_kl")
