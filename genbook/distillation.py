"""Students that sample in few steps what a diffusion model samples in many.

States x_t are float32 [N, ...]. `diffusion` is a GaussianDiffusion that predicts v; a
`model` maps (x_t, t) to v. Steps t are int64 [N] and count from 0; -1 stands for the
clean state. `times` are falling steps, as `even_steps` gives them. Sources: Salimans &
Ho (2022), arXiv:2202.00512, "PD"; Song, Dhariwal, Chen & Sutskever (2023),
arXiv:2303.01469, "CM".
"""

import numpy as np
import paddle


def even_steps(diffusion, steps):
    """steps + 1 times, spread evenly from T - 1 to -1: int64, falling.

    Every second one of an even number is `even_steps(diffusion, steps // 2)`.
    Raises ValueError unless steps is a whole number from 1 to T.
    """
    if steps != int(steps) or not 1 <= steps <= diffusion.timesteps:
        most = diffusion.timesteps
        raise ValueError(f"steps must be whole, from 1 to {most}, got {steps}")
    shares = np.arange(int(steps), -1, -1) / int(steps)
    return np.floor(diffusion.timesteps * shares).astype(np.int64) - 1


def end(diffusion, model, x_t, t):
    """Where the model sees the path of x_t end: its estimate of x_0, not clipped.

    At t = -1 it is x_t itself, whatever the model says. PD, section 4; CM, equation 5.
    """
    signal, noise = _levels(diffusion, t, x_t)
    return signal * x_t - noise * model(x_t, t.clip(min=0))


def target_loss(diffusion, model, x_t, t, target):
    """The mean squared error of v, with `target` [N, ...] in the place of x_0.

    It is that of `end`, divided by 1 - alpha-bar. Raises ValueError for a target of
    another shape than x_t.
    """
    if list(target.shape) != list(x_t.shape):
        found = f"{list(target.shape)} and {list(x_t.shape)}"
        raise ValueError(f"target and x_t must have one shape, got {found}")
    _, noise = _levels(diffusion, t, x_t)
    return ((end(diffusion, model, x_t, t) - target) / noise).square().mean()


@paddle.no_grad()
def two_steps_as_one(diffusion, teacher, x_t, t, middle, s):
    """The x_0 with which a DDIM step from t to s ends where two of the teacher's end.

    The two are from t to `middle` and from there to s. PD, algorithm 2.
    """
    x_s = diffusion.ddim_sample(teacher, x_t, t, middle)
    x_s = diffusion.ddim_sample(teacher, x_s, middle, s)
    signal, noise = _levels(diffusion, t, x_t)
    signal_s, noise_s = _levels(diffusion, s, x_t)
    ratio = noise_s / noise
    return (x_s - ratio * x_t) / (signal_s - ratio * signal)


def progressive_loss(diffusion, student, teacher, x_start, times):
    """The loss of a student that takes one step of DDIM for two of the teacher.

    x_start: clean states, float32 [N, ...]. times: of the teacher's steps, an even
    number. Each state gets the noise of a step from which the student starts. PD,
    algorithm 2. Raises ValueError for an odd number of steps.
    """
    if len(times) % 2 == 0:
        raise ValueError(f"an even number of steps is expected, got {len(times) - 1}")
    first = 2 * paddle.randint(0, len(times) // 2, x_start.shape[:1]).numpy()
    t, middle, s = (paddle.to_tensor(times[first + k]) for k in range(3))
    x_t = diffusion.q_sample(x_start, t)
    target = two_steps_as_one(diffusion, teacher, x_t, t, middle, s)
    return target_loss(diffusion, student, x_t, t, target)


def consistency_loss(diffusion, model, x_start, times, teacher=None):
    """The loss of a model whose ends should agree at neighbouring times of a path.

    x_start: clean states, float32 [N, ...]. The less noisy neighbour is where a DDIM
    step of the teacher leads; without a teacher it has the same x_start and noise. Its
    end is the target, through which no gradient flows. CM, algorithms 2 and 3, with the
    model itself for its moving average.
    """
    first = paddle.randint(0, len(times) - 1, x_start.shape[:1]).numpy()
    t, s = (paddle.to_tensor(times[first + k]) for k in range(2))
    noise = paddle.randn(x_start.shape)
    x_t = diffusion.q_sample(x_start, t, noise)
    with paddle.no_grad():
        if teacher is None:
            signal_s, noise_s = _levels(diffusion, s, x_start)
            x_s = signal_s * x_start + noise_s * noise
        else:
            x_s = diffusion.ddim_sample(teacher, x_t, t, s)
        target = end(diffusion, model, x_s, s)
    return target_loss(diffusion, model, x_t, t, target)


@paddle.no_grad()
def ddim(diffusion, model, x, times, eta=0.0):
    """x [N, ...] at the last of `times`, from x at the first: a step for each two."""
    for t, s in zip(times[:-1], times[1:], strict=True):
        now, then = (paddle.full([len(x)], int(k), dtype="int64") for k in (t, s))
        x = diffusion.ddim_sample(model, x, now, then, eta)
    return x


@paddle.no_grad()
def jumps(diffusion, model, x, times):
    """x_0 [N, ...] from x at the first of `times`: an end, noise, an end, and so on.

    Each end but the last gets fresh noise of the next of `times`, which are all from 0.
    CM, algorithm 1.
    """
    for k, time in enumerate(times):
        t = paddle.full([len(x)], int(time), dtype="int64")
        if k > 0:
            x = diffusion.q_sample(x, t)
        x = end(diffusion, model, x, t)
    return x


def _levels(diffusion, t, x):
    """The roots of alpha-bar and 1 - alpha-bar at t, of x's dimensions: [N, 1, ...]."""
    alpha_bar = np.append(1.0, diffusion.alphas_cumprod)[np.asarray(t) + 1]
    shape = [-1] + [1] * (x.ndim - 1)
    return [
        paddle.to_tensor(numbers, dtype="float32").reshape(shape)
        for numbers in (np.sqrt(alpha_bar), np.sqrt(1 - alpha_bar))
    ]
