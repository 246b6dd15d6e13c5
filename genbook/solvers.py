"""Solvers of the probability flow: from noise to data in few, well-chosen steps.

A state is x = x_0 + sigma * noise: the image is not shrunk, and sigma, the noise level,
says how far there is to go. A `denoiser` maps x [N, ...] and the number sigma to an
estimate of x_0, of the shape of x, and the flow is dx / dsigma =
(x - denoiser(x, sigma)) / sigma. The solvers only add and multiply, so states may be
tensors or numpy arrays. Sources: Karras, Aittala, Aila & Laine (2022),
arXiv:2206.00364, "EDM"; Lu, Zhou, Bao, Chen, Li & Zhu (2022), arXiv:2211.01095,
"DPM-Solver++".
"""

import numpy as np
import paddle


def noise_levels(diffusion):
    """The sigma of each step of a GaussianDiffusion, rising: float64 [T]."""
    return diffusion.sqrt_one_minus_alphas_cumprod / diffusion.sqrt_alphas_cumprod


def denoiser(model, diffusion):
    """A denoiser (x, sigma) from a network that was trained with `diffusion`.

    model: maps (x_t [N, ...], t [N]) to a prediction. The network knows whole steps t
    only; a sigma between two of them is treated as the nearer one, on a logarithmic
    scale. Estimates are clipped as `diffusion` does. No gradient is kept. The denoiser
    raises ValueError for a sigma that is not above 0.
    """
    log_levels = np.log(noise_levels(diffusion))

    @paddle.no_grad()
    def estimate(x, sigma):
        if not sigma > 0:
            raise ValueError(f"sigma must be above 0, got {sigma}")
        step = np.abs(log_levels - np.log(sigma)).argmin()
        t = paddle.full([len(x)], int(step), dtype="int64")
        x_t = x * float(diffusion.sqrt_alphas_cumprod[step])
        return diffusion.predict_start(model, x_t, t)

    return estimate


def preconditioning(sigma, sigma_data):
    """c_skip, c_out and c_in: a denoiser is c_skip * x + c_out * F(c_in * x).

    sigma: above 0, a number or an array. sigma_data: the deviation of the data. With
    these factors the input and the target of the network F have the variance 1, and its
    errors are amplified least. Karras et al. (2022), appendix B.6.
    Raises ValueError unless both are above 0.
    """
    if not np.all(np.asarray(sigma) > 0) or not sigma_data > 0:
        raise ValueError(f"both must be above 0, got {sigma=}, {sigma_data=}")
    total = sigma**2 + sigma_data**2
    return sigma_data**2 / total, sigma * sigma_data / total**0.5, total**-0.5


def karras_levels(steps, sigma_min, sigma_max, rho=7.0):
    """Levels from sigma_max to sigma_min and then 0: float64 [steps + 1].

    Their roots of the degree rho are evenly spaced: the larger rho, the more steps are
    at low noise. Karras et al. (2022), equation 5.
    Raises ValueError unless 0 < sigma_min < sigma_max, rho > 0 and steps >= 2.
    """
    if not 0 < sigma_min < sigma_max or not rho > 0:
        raise ValueError(f"no such levels: {sigma_min=}, {sigma_max=}, {rho=}")
    if steps != int(steps) or steps < 2:
        raise ValueError(f"steps must be a whole number from 2, got {steps}")
    roots = np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), int(steps))
    return np.append(roots**rho, 0.0)


def nearest_levels(sigmas, levels):
    """Each sigma moved to the nearest of `levels`, on a logarithmic scale; 0 stays.

    sigmas: falling, [steps + 1]. levels: above 0, [T]. Two that become equal become
    one, so that the result may be shorter. Returns float64, falling.
    Raises ValueError for other sigmas or levels.
    """
    sigmas, levels = _checked(sigmas), np.asarray(levels)
    if levels.ndim != 1 or not (levels > 0).all():
        raise ValueError(f"levels must be a vector of numbers above 0, got {levels}")
    above = np.array([s for s in sigmas if s > 0])
    gaps = np.abs(np.log(above)[:, np.newaxis] - np.log(levels))
    kept = np.unique(levels[gaps.argmin(axis=1)])[::-1]
    return np.append(kept, sigmas[len(above) :])


def euler(denoise, x, sigmas):
    """x at the last of `sigmas`, by Euler's method: one evaluation a step.

    x: [N, ...], at the first of sigmas. sigmas: falling, only the last may be 0. Raises
    ValueError for other sigmas. It is DDIM with eta = 0.
    """
    sigmas = _checked(sigmas)
    for now, then in zip(sigmas[:-1], sigmas[1:], strict=True):
        x = x + (then - now) * slope(denoise, x, now)
    return x


def heun(denoise, x, sigmas):
    """Like `euler`, by Heun's method: two evaluations a step, but one on the way to 0.

    Each step goes along the mean of the slopes at its start and where Euler's step
    would end. Karras et al. (2022), algorithm 1.
    """
    sigmas = _checked(sigmas)
    for now, then in zip(sigmas[:-1], sigmas[1:], strict=True):
        first = slope(denoise, x, now)
        guess = x + (then - now) * first
        if then > 0:
            mean = (first + slope(denoise, guess, then)) / 2
            guess = x + (then - now) * mean
        x = guess
    return x


def dpm_solver_2m(denoise, x, sigmas):
    """Like `euler`, by DPM-Solver++(2M): one evaluation a step, and a memory of one.

    The estimate of x_0 in the middle of a step is extrapolated from its start and that
    of the step before. The first step, and one to 0, take it as constant. Lu et al.
    (2022), algorithm 2.
    """
    sigmas, before = _checked(sigmas), None
    for i, (now, then) in enumerate(zip(sigmas[:-1], sigmas[1:], strict=True)):
        start = denoise(x, now)
        middle = start
        if before is not None and then > 0:
            ratio = np.log(now / then) / np.log(sigmas[i - 1] / now)  # of both steps
            middle = start + float(ratio) / 2 * (start - before)
        x = then / now * x + (1 - then / now) * middle
        before = start
    return x


def slope(denoise, x, sigma):
    """dx / dsigma along the flow. Karras et al. (2022), equations 1 and 3."""
    return (x - denoise(x, sigma)) / sigma


def _checked(sigmas):
    """As a list of floats; ValueError unless they fall, and at most the last is 0."""
    sigmas = np.asarray(sigmas, dtype=np.float64)
    if sigmas.ndim != 1 or len(sigmas) < 2:
        raise ValueError(f"two levels or more are expected, got {sigmas}")
    if not (np.diff(sigmas) < 0).all() or sigmas[-1] < 0:
        raise ValueError(f"levels must fall and not be negative, got {sigmas}")
    return sigmas.tolist()
