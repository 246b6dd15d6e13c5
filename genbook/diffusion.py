"""Gaussian diffusion: schedules, the forward process, its posterior, two samplers.

Images are float32 [N, C, H, W] in [-1, 1]. A step t is int64 [N] and counts from 0: x
at t = 0 has one step of noise, x at t = T - 1 has all T. Where the text numbers steps
from 1 to T, this is the text's t less 1. Sources: Ho, Jain & Abbeel (2020),
arXiv:2006.11239, "DDPM"; Song, Meng & Ermon (2021), arXiv:2010.02502, "DDIM"; Nichol &
Dhariwal (2021), arXiv:2102.09672; Salimans & Ho (2022), arXiv:2202.00512, for
v-prediction.
"""

import numpy as np
import paddle

MAX_BETA = 0.999  # 1 would wipe out the image in one step and divide by zero later


def linear_beta_schedule(timesteps):
    """Betas that rise in a line: float64 [T]. Ho et al. (2020), section 4.

    The paper's 1e-4 to 0.02 is for T = 1000. For another T the betas are rescaled by
    1000 / T, so that about the same noise is reached at the end.
    """
    _check_count(timesteps, "timesteps")
    scale = 1000 / timesteps
    return np.minimum(np.linspace(scale * 1e-4, scale * 0.02, timesteps), MAX_BETA)


def cosine_beta_schedule(timesteps, s=0.008):
    """Betas whose alphas_cumprod falls as a squared cosine: float64 [T].

    Nichol & Dhariwal (2021), equation 17; s keeps the first betas from vanishing.
    """
    _check_count(timesteps, "timesteps")
    u = np.linspace(0, 1, timesteps + 1)
    f = np.cos((u + s) / (1 + s) * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], MAX_BETA)


def extract(a, t, ndim=4):
    """The entries a[t] as a float32 tensor [N, 1, 1, 1], ready to scale N images.

    a: numpy [T]. t: int64 tensor [N]. ndim: how many dimensions the result has.
    Raises IndexError for a step outside 0 to T - 1, ValueError for another kind of t.
    """
    t = np.asarray(t)
    if t.ndim != 1 or t.size == 0 or t.dtype.kind not in "iu":
        raise ValueError(f"t must be whole numbers [N], got {t.dtype} {list(t.shape)}")
    if t.min() < 0 or t.max() >= len(a):
        found = f"{t.min()} to {t.max()}"
        raise IndexError(f"t must be from 0 to {len(a) - 1}, got {found}")
    return as_scale(a[t], ndim)


def as_scale(numbers, ndim):
    """One number for each image, numpy [N], as a float32 tensor [N, 1, 1, 1]."""
    column = paddle.to_tensor(numbers, dtype="float32")
    return column.reshape([-1] + [1] * (ndim - 1))


class GaussianDiffusion:
    """The forward process q, its posterior, and the reverse process p of a network.

    betas: [T], each in (0, 1). prediction: what the network's output stands for, "eps"
    (the noise) or "v" (sqrt_alphas_cumprod * noise - sqrt_one_minus_alphas_cumprod *
    x_start). clip: estimates of x_start are clipped to [-clip, clip], the range of the
    data. A `model` is anything that maps (x_t [N, C, H, W], t [N]) to a prediction
    [N, C, H, W].
    Raises ValueError for betas out of range and for an unknown prediction. The methods
    raise it for images, noise or predictions of different shapes, which would
    broadcast, and IndexError for a step outside 0 to T - 1.
    """

    def __init__(self, betas, prediction="eps", clip=1.0):
        betas = np.asarray(betas, dtype=np.float64)
        if betas.ndim != 1 or betas.size == 0:
            raise ValueError(f"betas must be a non-empty vector, got {betas.shape}")
        if not np.all((betas > 0) & (betas < 1)):
            raise ValueError("betas must lie between 0 and 1")
        if prediction not in ("eps", "v"):
            raise ValueError(f'prediction must be "eps" or "v", got {prediction!r}')
        if not clip > 0:
            raise ValueError(f"clip must be above 0, got {clip}")
        self.prediction = prediction
        self.clip = clip
        self.timesteps = len(betas)
        self.betas = betas
        alphas = 1.0 - betas
        self.alphas_cumprod = np.cumprod(alphas)
        self.alphas_cumprod_prev = np.append(1.0, self.alphas_cumprod[:-1])
        self.sqrt_alphas_cumprod = np.sqrt(self.alphas_cumprod)
        self.sqrt_one_minus_alphas_cumprod = np.sqrt(1.0 - self.alphas_cumprod)

        # q(x_{t-1} | x_t, x_0), Ho et al. (2020), equations 6 and 7
        rest = 1.0 - self.alphas_cumprod
        rest_prev = 1.0 - self.alphas_cumprod_prev
        self.posterior_variance = betas * rest_prev / rest
        self.posterior_mean_coef1 = betas * np.sqrt(self.alphas_cumprod_prev) / rest
        self.posterior_mean_coef2 = rest_prev * np.sqrt(alphas) / rest
        # At t = 0 the variance is 0 and its logarithm -inf; the next one stands in.
        floor = self.posterior_variance[min(1, self.timesteps - 1)]
        self.posterior_log_variance_clipped = np.log(
            np.maximum(np.append(floor, self.posterior_variance[1:]), 1e-20)
        )

    # The forward process

    def q_sample(self, x_start, t, noise=None):
        """A draw of x_t given x_start, in one step. Ho et al. (2020), equation 4."""
        if noise is None:
            noise = paddle.randn(x_start.shape)
        signal = extract(self.sqrt_alphas_cumprod, t, x_start.ndim)
        _check_shapes(t, x_start, noise)
        return signal * x_start + self._noise_scale(t, x_start.ndim) * noise

    def _noise_scale(self, t, ndim):
        return extract(self.sqrt_one_minus_alphas_cumprod, t, ndim)

    def q_posterior_mean_variance(self, x_start, x_t, t):
        """Of q(x_{t-1} | x_t, x_start): mean, variance and its logarithm.

        mean: [N, C, H, W]. The others: [N, 1, 1, 1]. The log variance at t = 0, where
        the variance is 0, is that at t = 1. Ho et al. (2020), equations 6 and 7.
        """
        _check_shapes(t, x_start, x_t)
        mean = (
            extract(self.posterior_mean_coef1, t, x_t.ndim) * x_start
            + extract(self.posterior_mean_coef2, t, x_t.ndim) * x_t
        )
        variance = extract(self.posterior_variance, t, x_t.ndim)
        log_variance = extract(self.posterior_log_variance_clipped, t, x_t.ndim)
        return mean, variance, log_variance

    # From what the network predicts to x_start and noise

    def predict_start_from_noise(self, x_t, t, noise):
        """The x_start that gives x_t with this noise: q_sample solved for x_start."""
        _check_shapes(t, x_t, noise)
        signal = extract(self.sqrt_alphas_cumprod, t, x_t.ndim)
        return (x_t - self._noise_scale(t, x_t.ndim) * noise) / signal

    def predict_noise_from_start(self, x_t, t, x_start):
        """The noise that leads from x_start to x_t: q_sample solved for the noise."""
        _check_shapes(t, x_t, x_start)
        signal = extract(self.sqrt_alphas_cumprod, t, x_t.ndim)
        return (x_t - signal * x_start) / self._noise_scale(t, x_t.ndim)

    def predict_start_from_v(self, x_t, t, v):
        """The x_start for a given v. Salimans & Ho (2022), section 4."""
        _check_shapes(t, x_t, v)
        signal = extract(self.sqrt_alphas_cumprod, t, x_t.ndim)
        return signal * x_t - self._noise_scale(t, x_t.ndim) * v

    def target(self, x_start, t, noise):
        """What the network should predict for x_t = q_sample(x_start, t, noise)."""
        _check_shapes(t, x_start, noise)
        if self.prediction == "eps":
            return noise
        signal = extract(self.sqrt_alphas_cumprod, t, x_start.ndim)
        return signal * noise - self._noise_scale(t, x_start.ndim) * x_start

    def predict_start(self, model, x_t, t):
        """The estimate of x_start, clipped to the range of the data."""
        output = model(x_t, t)
        if self.prediction == "eps":
            x_start = self.predict_start_from_noise(x_t, t, output)
        else:
            x_start = self.predict_start_from_v(x_t, t, output)
        return x_start.clip(-self.clip, self.clip)

    # Training

    def p_losses(self, model, x_start, t, noise=None):
        """The squared error of the prediction, a mean over each image's pixels: [N].

        Ho et al. (2020), equation 14, where the prediction is the noise.
        """
        if noise is None:
            noise = paddle.randn(x_start.shape)
        x_t = self.q_sample(x_start, t, noise)
        output, target = model(x_t, t), self.target(x_start, t, noise)
        _check_shapes(t, output, target)
        return (output - target).square().mean(axis=list(range(1, x_start.ndim)))

    def training_loss(self, model, x_start):
        """The mean of p_losses at steps drawn uniformly from 0 to T - 1."""
        t = paddle.randint(0, self.timesteps, [x_start.shape[0]])
        return self.p_losses(model, x_start, t).mean()

    # Ancestral sampling (DDPM)

    def p_mean_variance(self, model, x_t, t):
        """Of p(x_{t-1} | x_t): (mean, variance, log_variance, x_start estimate)."""
        x_start = self.predict_start(model, x_t, t)
        return *self.q_posterior_mean_variance(x_start, x_t, t), x_start

    def p_sample(self, model, x_t, t, noise=None):
        """One reverse step: a draw of x_{t-1} given x_t; at t = 0 its mean."""
        if noise is None:
            noise = paddle.randn(x_t.shape)
        mean, _, log_variance, _ = self.p_mean_variance(model, x_t, t)
        _check_shapes(t, x_t, noise)
        noisy = (t > 0).astype(x_t.dtype).reshape([-1] + [1] * (x_t.ndim - 1))
        return mean + noisy * paddle.exp(0.5 * log_variance) * noise

    def p_sample_progressive(self, model, shape):
        """Yields x_T, x_{T-1}, ..., x_0, each of `shape`, starting from noise."""
        for side in shape:
            _check_count(side, "each number in shape")
        x = paddle.randn(shape)
        yield x
        for step in reversed(range(self.timesteps)):
            with paddle.no_grad():
                x = self.p_sample(model, x, _full(step, shape))
            yield x

    def p_sample_loop(self, model, shape):
        """Images of `shape` [N, C, H, W], sampled from noise in T steps."""
        return _last(self.p_sample_progressive(model, shape))

    # Fewer steps (DDIM)

    def ddim_sample(self, model, x_t, t, t_prev, eta=0.0, noise=None):
        """A step from x_t to the less noisy x at t_prev < t.

        Song et al. (2021), equation 12. t_prev = -1 stands for the clean image. eta = 0
        adds no noise; eta = 1 with t_prev = t - 1 is the step of p_sample.
        Raises ValueError unless each t_prev is from -1 to t - 1 and eta is at least 0.
        """
        _check_previous(t_prev, t)
        if not eta >= 0:
            raise ValueError(f"eta must be at least 0, got {eta}")
        x_start = self.predict_start(model, x_t, t)
        # The noise that belongs to the clipped x_start, not the one that was predicted.
        eps = self.predict_noise_from_start(x_t, t, x_start)

        alpha_bar = self.alphas_cumprod[t.numpy()]
        from_clean = np.append(1.0, self.alphas_cumprod)  # begins one step earlier
        alpha_bar_prev = from_clean[t_prev.numpy() + 1]
        sigma = eta * np.sqrt(
            (1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev)
        )
        direction = np.sqrt(np.maximum(1 - alpha_bar_prev - sigma**2, 0.0))

        signal = as_scale(np.sqrt(alpha_bar_prev), x_t.ndim)
        x_prev = signal * x_start + as_scale(direction, x_t.ndim) * eps
        if eta == 0.0:
            return x_prev
        if noise is None:
            noise = paddle.randn(x_t.shape)
        _check_shapes(t, x_t, noise)
        return x_prev + as_scale(sigma, x_t.ndim) * noise

    def ddim_timesteps(self, steps):
        """`steps` steps spread evenly from T - 1 down to 0, int64 [steps].

        Raises ValueError unless steps is a whole number from 1 to T.
        """
        if not isinstance(steps, (int, np.integer)) or not 1 <= steps <= self.timesteps:
            most = self.timesteps
            raise ValueError(f"steps must be whole, from 1 to {most}, got {steps!r}")
        return np.linspace(self.timesteps - 1, 0, steps).round().astype(np.int64)

    def ddim_sample_progressive(self, model, shape, steps, eta=0.0):
        """Yields the noise it starts from and then x after each of `steps` steps."""
        times = self.ddim_timesteps(steps)
        for side in shape:
            _check_count(side, "each number in shape")
        x = paddle.randn(shape)
        yield x
        for t, t_prev in zip(times, [*times[1:], -1], strict=True):
            with paddle.no_grad():
                now, then = _full(t, shape), _full(t_prev, shape)
                x = self.ddim_sample(model, x, now, then, eta)
            yield x

    def ddim_sample_loop(self, model, shape, steps, eta=0.0):
        """Images of `shape` [N, C, H, W], sampled from noise in `steps` steps."""
        return _last(self.ddim_sample_progressive(model, shape, steps, eta))


# Labels and guidance


def hide_labels(labels, unknown, share=0.1):
    """The labels, each replaced by the number `unknown` with probability `share`.

    labels: int64 [N]. A network trained on the result learns p(x | label) and p(x) at
    once. Ho & Salimans (2022), arXiv:2207.12598, algorithm 1.
    Raises ValueError unless the labels are whole and from 0 to `unknown`.
    """
    labels = _shown_or_hidden(labels, unknown)
    if not 0 <= share <= 1:
        raise ValueError(f"share must be from 0 to 1, got {share}")
    hidden = (paddle.rand(labels.shape) < share).astype("int64")
    return labels + hidden * (unknown - labels)


def guided(network, labels, scale=0.0):
    """A `model` of (x_t, t) that predicts for `labels`, and away from none.

    network: maps (x_t, t, labels) to a prediction; labels left out mean unknown.
    labels: int64 [N]. scale: >= 0; 0 just passes the labels on. Ho & Salimans (2022),
    equation 6. Raises ValueError for a negative scale, and for x_t of another N.
    """
    if not scale >= 0:
        raise ValueError(f"scale must be at least 0, got {scale}")

    def model(x_t, t):
        if len(labels) != len(x_t):
            raise ValueError(f"{len(labels)} labels for {len(x_t)} images")
        with_label = network(x_t, t, labels)
        if scale == 0:
            return with_label
        return with_label + scale * (with_label - network(x_t, t))

    return model


def _shown_or_hidden(labels, most):
    """int64 [N]; ValueError unless all are whole and from 0 to `most`."""
    labels = labels if paddle.is_tensor(labels) else paddle.to_tensor(labels)
    if labels.dtype not in (paddle.int32, paddle.int64):
        raise ValueError(f"labels must be whole numbers, got {labels.dtype}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high > most:
        raise ValueError(f"labels must be from 0 to {most}, got {low} to {high}")
    return labels.astype("int64")


def _check_count(n, name):
    """Raise ValueError unless n is a whole number of at least 1."""
    if not isinstance(n, (int, np.integer)) or n < 1:
        raise ValueError(f"{name} must be a whole number from 1, got {n!r}")


def _check_shapes(t, *images):
    """Raise ValueError unless the images have one shape [N, ...] and t has [N]."""
    shapes = [list(x.shape) for x in images]
    if any(shape != shapes[0] for shape in shapes) or list(t.shape) != shapes[0][:1]:
        found = f"{shapes}, t: {list(t.shape)}"
        raise ValueError(f"expected one shape [N, ...] and a t [N], got {found}")


def _check_previous(t_prev, t):
    """Raise ValueError unless each t_prev is from -1 to t - 1."""
    t_prev, t = np.asarray(t_prev), np.asarray(t)
    if t_prev.shape != t.shape or (t_prev < -1).any() or (t_prev >= t).any():
        raise ValueError(f"t_prev must be from -1 to t - 1, got {t_prev} for t = {t}")


def _full(step, shape):
    """The same step for a whole batch: int64 [N]."""
    return paddle.full([shape[0]], int(step), dtype="int64")


def _last(iterator):
    """The last item of an iterator that yields at least one."""
    for item in iterator:
        pass
    return item
