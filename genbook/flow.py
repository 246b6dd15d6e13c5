"""Flow matching: a network learns the velocity of the way from noise to data.

Images are float32 [N, ...]. Time tau runs from 0, the data, to 1, the noise, and a
state is x_tau = (1 - tau) * x_0 + tau * noise. A `model` maps (x [N, ...], t [N]) to a
velocity, t being whole: the time in thousandths. A `velocity` maps (x, tau), tau a
number, to dx / dtau of x's shape. Sources: Lipman, Chen, Ben-Hamu, Nickel & Le (2023),
arXiv:2210.02747, "flow matching"; Liu, Gong & Liu (2023), arXiv:2209.03003, "rectified
flow". Both count time the other way.
"""

import numpy as np
import paddle

LEVELS = 1000  # a network is told the time t / LEVELS


def flow_loss(model, x_0, noise=None, tau=None):
    """The squared error of the velocity, a mean over each image's pixels: [N].

    noise: where the paths of x_0 end, drawn from the standard normal if None. tau: [N],
    from 0 to 1, drawn evenly if None and moved to the nearest time that a network can
    be told. Lipman et al. (2023), equation 23. Raises ValueError for noise, times or
    predictions of another shape and for times out of range.
    """
    noise = paddle.randn(x_0.shape) if noise is None else noise
    tau = paddle.rand(x_0.shape[:1]) if tau is None else tau
    if list(tau.shape) != x_0.shape[:1] or not bool(((tau >= 0) & (tau <= 1)).all()):
        raise ValueError(f"tau must be {x_0.shape[:1]} and from 0 to 1, got {tau}")
    t = (LEVELS * tau).round().astype("int64")
    level = (t.astype(x_0.dtype) / LEVELS).reshape([-1] + [1] * (x_0.ndim - 1))
    _same_shape(x_0, noise)
    output = model((1 - level) * x_0 + level * noise, t)
    _same_shape(x_0, output)
    target = noise - x_0
    return (output - target).square().mean(axis=list(range(1, x_0.ndim)))


def velocity(model):
    """A velocity (x, tau) of a model that is told whole thousandths; keeps no gradient.

    A tau between two of them is told as the nearer one. It raises ValueError unless tau
    is from 0 to 1.
    """

    @paddle.no_grad()
    def at(x, tau):
        if not 0 <= tau <= 1:
            raise ValueError(f"tau must be from 0 to 1, got {tau}")
        return model(x, paddle.full([len(x)], round(LEVELS * tau), dtype="int64"))

    return at


def velocity_from_v(model, diffusion):
    """A velocity (x, tau) from a model that predicts v, trained with `diffusion`.

    Both paths lead from x_0 to noise, and at equal shares of the two a state of the one
    is a multiple of a state of the other. Of the steps t of `diffusion` the nearest to
    tau is taken. No gradient is kept. Raises ValueError for another prediction than v.
    """
    if diffusion.prediction != "v":
        raise ValueError(f'expected prediction "v", got "{diffusion.prediction}"')
    signal = diffusion.sqrt_alphas_cumprod  # cos and sin of the angle on the circle
    noise = diffusion.sqrt_one_minus_alphas_cumprod
    times = noise / (signal + noise)

    @paddle.no_grad()
    def at(x, tau):
        t = np.abs(times - tau).argmin()
        larger = float(signal[t] + noise[t])
        on_circle = larger * x
        v = model(on_circle, paddle.full([len(x)], int(t), dtype="int64"))
        return larger * v + float(noise[t] - signal[t]) * on_circle

    return at


def euler(velocity, x, times):
    """x at the last of `times`, by Euler's method: one evaluation a step.

    x: [N, ...], at the first of times, a tensor or a numpy array. times: [steps + 1],
    falling, in [0, 1]. Raises ValueError for other times.
    """
    times = _checked(times)
    for now, then in zip(times[:-1], times[1:], strict=True):
        x = x + (then - now) * velocity(x, now)
    return x


def midpoint(velocity, x, times):
    """Like `euler`, along the velocity in the middle of each step: two evaluations."""
    times = _checked(times)
    for now, then in zip(times[:-1], times[1:], strict=True):
        half = (then - now) / 2
        x = x + 2 * half * velocity(x + half * velocity(x, now), now + half)
    return x


def log_likelihood(model, x, times):
    """The log-density of each x [N, ...] under the flow of `model`, estimated: [N].

    model: as for `velocity`, but lets gradients through. times: rising from 0 to 1. The
    noise of x is found by steps of the midpoint method, each with a random estimate of
    the divergence: one vector of signs, Hutchinson (1990). Chen, Rubanova, Bettencourt
    & Duvenaud (2018), equation 8. Returns numpy float64, in nats. Raises ValueError for
    other times.
    """
    forward = _checked(np.asarray(times)[::-1])[::-1]
    if forward[0] != 0 or forward[-1] != 1:
        raise ValueError(f"times must go from 0 to 1, got {times}")
    move, total = velocity(model), np.zeros(len(x))
    for now, then in zip(forward[:-1], forward[1:], strict=True):
        h, middle = then - now, (now + then) / 2
        u, trace = _divergence(model, x + h / 2 * move(x, now), middle)
        x, total = x + h * u, total + h * trace
    ends = x.flatten(1).numpy().astype(np.float64)
    square = (ends**2 + np.log(2 * np.pi)).sum(axis=1)
    return total - square / 2


def _divergence(model, x, tau):
    """The velocity at (x, tau), and an estimate of its divergence: x's shape, [N]."""
    with paddle.enable_grad():
        x = x.detach()
        x.stop_gradient = False
        u = model(x, paddle.full([len(x)], round(LEVELS * tau), dtype="int64"))
        signs = 2.0 * paddle.randint(0, 2, x.shape).astype(x.dtype) - 1
        product = paddle.grad((u * signs).sum(), x)[0]  # the Jacobian's transpose
    inner = (product * signs).flatten(1).numpy().astype(np.float64)
    return u.detach(), inner.sum(axis=1)


def _checked(times):
    """As a list of floats; ValueError unless they fall and are from 0 to 1."""
    times = np.asarray(times, dtype=np.float64)
    if times.ndim != 1 or len(times) < 2 or not (np.diff(times) < 0).all():
        raise ValueError(f"two times or more are expected, falling, got {times}")
    if times[0] > 1 or times[-1] < 0:
        raise ValueError(f"times must be from 0 to 1, got {times}")
    return times.tolist()


def _same_shape(x, y):
    """Raise ValueError unless both have one shape."""
    if list(x.shape) != list(y.shape):
        raise ValueError(f"expected one shape, got {list(x.shape)}, {list(y.shape)}")
