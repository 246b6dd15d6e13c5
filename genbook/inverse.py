"""Finding images behind a measurement y = A x + noise, with a trained diffusion model.

Nothing is trained here. Images x are float32 [N, ...] of D numbers each, in the range
of the diffusion. A is numpy [M, D], and y is [N, M]. Sources: Lugmayr et al. (2022),
arXiv:2201.09865, "RePaint", for replacement; Song, Vahdat, Mardani & Kautz (2023),
"Pseudoinverse-guided diffusion models for inverse problems", for the gradient.
"""

import numpy as np
import paddle


def complete(diffusion, model, known, mask, steps, repeats=1):
    """Images [N, ...] like `known` where mask is 1, sampled in `steps` steps.

    Before each step the known pixels are put in, with noise. diffusion: a
    GaussianDiffusion; model: maps (x_t, t) to its prediction. mask: 0 or 1, of the
    shape of one image; where it is 0, `known` is not looked at. Each step is taken
    `repeats` times, and its noise is put back in between. Lugmayr et al. (2022),
    algorithm 1. Raises ValueError for a mask of another shape and for repeats below 1.
    """
    if list(mask.shape) != list(known.shape[1:]) or repeats < 1:
        expected = f"a mask {list(known.shape[1:])} and repeats of at least 1"
        raise ValueError(f"expected {expected}, got {list(mask.shape)}, {repeats}")
    times = [*diffusion.ddim_timesteps(steps), -1]
    levels = np.append(diffusion.alphas_cumprod, 1.0)  # the last is that of step -1
    x = paddle.randn(known.shape)
    for t, s in zip(times[:-1], times[1:], strict=True):
        now, then = (paddle.full([len(x)], int(k), dtype="int64") for k in (t, s))
        for repeat in range(repeats):
            if repeat > 0:  # from s back to t
                left = levels[t] / levels[s]
                x = left**0.5 * x + (1 - left) ** 0.5 * paddle.randn(x.shape)
            x = mask * diffusion.q_sample(known, now) + (1 - mask) * x
            with paddle.no_grad():
                x = diffusion.ddim_sample(model, x, now, then, eta=1.0)
    return mask * known + (1 - mask) * x


def measured(network, diffusion, A, y, noise, variance):
    """A `model` of (x_t, t) that predicts v for the images with A x near y.

    network: maps (x_t, t) to v, and lets gradients through. diffusion: one with
    prediction "v". noise: standard deviation of the noise in y, above 0. variance: maps
    alpha-bar, numpy [N], to r_t^2 [N], that of x_0 given x_t. Song et al. (2023),
    equation 7. Raises ValueError for a y of another shape, for noise that is not above
    0, and for a diffusion that does not predict v.
    """
    A, y = (np.asarray(numbers, dtype=np.float64) for numbers in (A, y))
    if A.ndim != 2 or y.ndim != 2 or y.shape[1] != len(A):
        found = f"{list(A.shape)} and {list(y.shape)}"
        raise ValueError(f"A must be [M, D] and y [N, M], got {found}")
    if not noise > 0 or diffusion.prediction != "v":
        found = f'{noise} and "{diffusion.prediction}"'
        raise ValueError(f'expected noise above 0 and prediction "v", got {found}')
    lengths, Q = np.linalg.eigh(A @ A.T)  # A A^T = Q diag(lengths) Q^T

    def model(x_t, t):
        if len(x_t) != len(y):
            raise ValueError(f"{len(y)} measurements for {len(x_t)} images")
        alpha_bar = diffusion.alphas_cumprod[t.numpy()].reshape(-1, 1)
        with paddle.enable_grad():
            x = x_t.detach()
            x.stop_gradient = False
            v = network(x, t)
            x_0 = diffusion.predict_start_from_v(x, t, v).flatten(1)  # [N, D]
            error = y - x_0.numpy() @ A.T
            pull = error @ Q / (variance(alpha_bar) * lengths + noise**2) @ Q.T @ A
            weighted = (x_0 * paddle.to_tensor(pull, dtype="float32")).sum()
            gradient = paddle.grad(weighted, x)[0]
        factor = np.sqrt((1 - alpha_bar) / alpha_bar)
        factor = factor.reshape([-1] + [1] * (x.ndim - 1))
        return v.detach() - paddle.to_tensor(factor, dtype="float32") * gradient

    return model


def energy_score(samples, truth):
    """The energy score of M samples for each of N truths, less is better: [N].

    samples: [N, M, D], M at least 2. truth: [N, D]. The mean distance to the truth,
    less half the mean distance of two samples. Gneiting & Raftery (2007), equation 22.
    Raises ValueError for other shapes.
    """
    samples, truth = np.asarray(samples), np.asarray(truth)
    shapes = f"{list(samples.shape)} and {list(truth.shape)}"
    if samples.ndim != 3 or samples[:, 0].shape != truth.shape or samples.shape[1] < 2:
        raise ValueError(f"expected [N, M, D], M > 1, and [N, D], got {shapes}")
    m = samples.shape[1]
    off = np.linalg.norm(samples - truth[:, np.newaxis], axis=2).mean(axis=1)
    gaps = samples[:, :, np.newaxis] - samples[:, np.newaxis]  # [N, M, M, D]
    pairs = np.linalg.norm(gaps, axis=3).sum(axis=(1, 2)) / (m * (m - 1))
    return off - pairs / 2
