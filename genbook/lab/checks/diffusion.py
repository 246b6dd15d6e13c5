"""Checks for Task 3: the forward noising, the posterior, and the reverse step."""

import numpy as np
import paddle

from .compare import Wrong, array, call, check_standard_normal, compare, expect_shape, same

BROADCAST = (
    "the numbers for the images were spread over the width and not over the batch: they "
    "must have the shape [N, 1, 1, 1]"
)


def check_q_sample(GaussianDiffusion, seed=0):
    """Wrong, with the reason, unless q_sample(x_start, t, noise) is a draw of x_t.

    GaussianDiffusion: the class, made of betas [T]. seed: of the inputs.
    """
    case = _Case(GaussianDiffusion, seed)
    x_t = case.call("q_sample", case.x_start, case.t, case.noise)
    if not same(x_t, case.call("q_sample", case.x_start, case.t, case.noise)):
        raise Wrong("q_sample draws noise although it is given some; draw only where noise is None")
    bar, x, noise = case.bar, case.x_start, case.noise
    signal, rest = np.sqrt(bar), np.sqrt(1 - bar)
    one, two = np.sqrt(1 - case.beta), np.sqrt(case.beta)
    mistakes = {
        "the roots are missing: x_t is sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise": (
            bar * x + (1 - bar) * noise
        ),
        "the root of 1 - alpha_bar is missing": signal * x + (1 - bar) * noise,
        "the root of alpha_bar is missing": bar * x + rest * noise,
        "the two scales are exchanged: the image gets sqrt(alpha_bar)": rest * x + signal * noise,
        "this is one step only: take the cumulative product alpha_bar where 1 - beta "
        "stands": one * x + two * noise,
        "the scale of the noise is 1 - sqrt(alpha_bar); it must be sqrt(1 - alpha_bar), or "
        "the variance is not kept": signal * x + (1 - signal) * noise,
        "the image is not scaled: it must shrink by sqrt(alpha_bar)": x + rest * noise,
        "the noise is not scaled: it gets sqrt(1 - alpha_bar)": signal * x + noise,
        "no noise was added": signal * x,
        "the noise is subtracted and not added": signal * x - rest * noise,
        "t is off by one: t = 0 already has one step of noise, so take alpha_bar[t] and "
        "not alpha_bar[t - 1]": np.sqrt(case.bar_prev) * x + np.sqrt(1 - case.bar_prev) * noise,
        BROADCAST: _wide(signal) * x + _wide(rest) * noise,
    }  # fmt: skip
    compare(x_t, signal * x + rest * noise, mistakes, "x_t")

    many, (t, bar) = np.zeros((500, *x.shape[1:])), case.last
    drawn = case.call("q_sample", many, np.full(500, t), None) / np.sqrt(1 - bar)
    check_standard_normal(drawn.reshape(500, -1), "q_sample without noise")


def check_q_posterior_mean_variance(GaussianDiffusion, seed=0):
    """Wrong, with the reason, unless it gives mean, variance, log variance of x_{t-1}.

    They are compared with what Bayes' rule gives for two normal densities. The log
    variance at t = 0, where the variance is 0, must be finite. GaussianDiffusion: the
    class, made of betas [T]. seed: of the inputs.
    """
    case = _Case(GaussianDiffusion, seed)
    name = "q_posterior_mean_variance"
    inputs = [_tensor(a) for a in (case.x_start, case.x_t, case.t)]
    result = call(getattr(case.process, name), *inputs, name=name)
    if not isinstance(result, (tuple, list)) or len(result) != 3:
        raise Wrong(f"{name} must return three things: mean, variance and log variance")
    mean, variance, log_variance = (array(part, name) for part in result)
    expected_mean, expected_variance = case.posterior()

    x, x_t, beta, bar, prev = case.x_start, case.x_t, case.beta, case.bar, case.bar_prev
    of_start = beta * np.sqrt(prev) / (1 - bar)
    of_x_t = (1 - prev) * np.sqrt(1 - beta) / (1 - bar)
    mistakes = {
        "the two coefficients of the mean are exchanged": of_x_t * x + of_start * x_t,
        "in the mean, x_start is scaled with sqrt(alpha_bar_t); take sqrt(alpha_bar_{t-1})": (
            beta * np.sqrt(bar) / (1 - bar) * x + of_x_t * x_t
        ),
        "in the mean, x_t is scaled with 1 - alpha_bar_t; take 1 - alpha_bar_{t-1}": (
            of_start * x + np.sqrt(1 - beta) * x_t
        ),
        "in the mean, x_t is scaled with sqrt(alpha_bar_t); take the root of one step, "
        "sqrt(1 - beta_t)": of_start * x + (1 - prev) * np.sqrt(bar) / (1 - bar) * x_t,
        "in the mean, the roots are missing": (
            beta * prev / (1 - bar) * x + (1 - prev) * (1 - beta) / (1 - bar) * x_t
        ),
        "in the mean, the term of x_t is missing": of_start * x,
        "in the mean, the term of x_start is missing": of_x_t * x_t,
        f"in the mean, {BROADCAST}": _wide(of_start) * x + _wide(of_x_t) * x_t,
    }
    compare(mean, expected_mean, mistakes, "the mean")

    def flat(values):
        """One number for each image, where the shape is [N], [N, 1, 1, 1] or x_t's."""
        if values.shape not in [(len(x),), (len(x), 1, 1, 1), x.shape]:
            expect_shape(values, [len(x), 1, 1, 1], f"{name}: the variance")
        return values.reshape(len(x), -1)[:, 0]

    beta, bar, prev = beta.ravel(), bar.ravel(), prev.ravel()
    right = expected_variance.ravel()
    mistakes = {
        "the variance is beta_t, that of a step forward; the posterior's is beta_t "
        "(1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)": beta,
        "this is the standard deviation, the root of the variance": np.sqrt(right),
        "the variance is upside down: 1 - alpha_bar_{t-1} belongs above, 1 - alpha_bar_t "
        "below": np.divide(beta * (1 - bar), 1 - prev, where=prev < 1,
                           out=np.full_like(bar, np.inf)),
        "the variance is that of x_t given x_0, 1 - alpha_bar_t": 1 - bar,
        "the factor beta_t of the variance is missing": (1 - prev) / (1 - bar),
    }  # fmt: skip
    compare(flat(variance), right, mistakes, "the variance")

    found = flat(log_variance)
    first = case.t == 0
    if not np.isfinite(found[first]).all():
        raise Wrong(
            "the log variance at t = 0 is infinite, because the variance is 0 there: "
            "take that of t = 1 in its place"
        )
    right = np.log(right[~first])
    mistakes = {
        "the log variance is half of the right one: it is log sigma^2, not log sigma": right / 2,
        "the third result is the standard deviation, not the log variance": np.exp(right / 2),
        "the third result is the variance, not its logarithm": np.exp(right),
    }
    compare(found[~first], right, mistakes, "the log variance")


def check_p_sample(GaussianDiffusion, seed=0):
    """Wrong, with the reason, unless p_sample(model, x_t, t, noise) is a draw of x_{t-1}.

    Its posterior is given to it, so that a mistake there does not count twice.
    GaussianDiffusion: the class, made of betas [T]. seed: of the inputs.
    """
    case = _Case(GaussianDiffusion, seed)
    found = case.step(case.noise)
    if not same(found, case.step(case.noise)):
        raise Wrong("p_sample draws noise although it is given some; draw only where noise is None")
    last = _Case(GaussianDiffusion, seed, t=np.zeros(5, dtype=np.int64))
    if same(last.step(last.noise), last.x_start + last.sigma * last.noise):
        raise Wrong("noise was added at t = 0: the last step gives the mean")

    x, noise, start, sigma = case.x_t, case.noise, case.x_start, case.sigma
    mean, _ = case.posterior()
    variance, noisy = sigma**2, (case.t > 0).reshape(-1, 1, 1, 1)
    mistakes = {
        "one image decides for the whole batch whether noise is added: ask t > 0 of each "
        "image": mean + sigma * noise,
        "no noise was added: only the last step, t = 0, goes without": mean,
        "no noise was added at t = 1: only t = 0 goes without": (
            mean + (case.t > 1).reshape(-1, 1, 1, 1) * sigma * noise
        ),
        "the variance stands where sigma belongs: sigma is exp(0.5 * log_variance)": (
            mean + noisy * variance * noise
        ),
        "sigma was taken for log-variance: sigma is exp(0.5 * log_variance)": (
            mean + noisy * np.log(variance) * noise
        ),
        "the variance stands where sigma belongs, and noise was added at t = 0": (
            mean + variance * noise
        ),
        "the noise is not scaled: it gets sigma, exp(0.5 * log_variance)": mean + noisy * noise,
        "the noise is subtracted and not added": mean - noisy * sigma * noise,
        "the noise is added to x_t and not to the mean": x + noisy * sigma * noise,
        "this starts from the estimate of x_start; a step leads to x_{t-1}, so start from "
        "the posterior's mean": start + noisy * sigma * noise,
        "this is the estimate of x_start; a step leads to x_{t-1}": start,
        "the whole mask is spread over the width and not over the batch: it must have the "
        "shape [N, 1, 1, 1]": mean + _wide(noisy) * sigma * noise,
    }  # fmt: skip
    compare(found, mean + noisy * sigma * noise, mistakes, "x_{t-1}")

    if same(case.step(None), case.step(None)):
        raise Wrong("p_sample without noise gives the same twice: draw noise where it is None")


def check_diffusion_samples(samples, images):
    """Wrong unless samples [N, C, H, W] look, from far away, like images [M, C, H, W].

    Both in [-1, 1]. Compared are the mean image and the spread of the pixels around it,
    which noise, blanks and copies of one image do not share.
    """
    samples = array(samples, "the samples")
    expect_shape(samples, (*samples.shape[:1], *images.shape[1:]), "the array of samples")
    if not np.isfinite(samples).all():
        raise Wrong("the samples hold numbers that are infinite or not a number")
    off = float(np.sqrt(((samples.mean(0) - images.mean(0)) ** 2).mean()))
    if off > 0.25:
        raise Wrong(
            f"the mean of the samples is {off:.2f} from the mean image (root mean square of "
            "pixels), expected at most 0.25: is the network trained, does each step use its own t?"
        )
    ratio = float(np.sqrt(samples.var(0).mean() / images.var(0).mean()))
    if not 0.75 < ratio < 1.25:
        raise Wrong(f"the samples vary {ratio:.2f} times as much as the images, expected about 1")


class _Case:
    """A small diffusion and inputs for it, drawn anew for each seed.

    Each image has a step of its own, 0 and 1 among them, unless t is given. The batch is
    as large as the images are wide: numbers spread over the wrong one are then wrong, and
    no error. The network foretells the noise that leads from x_start to x_t.
    """

    def __init__(self, GaussianDiffusion, seed, t=None):
        rng = np.random.default_rng(seed)
        timesteps = int(rng.integers(6, 10))
        betas = rng.uniform(0.05, 0.4, timesteps)
        self.process = call(GaussianDiffusion, betas, name="GaussianDiffusion(betas)")
        bar = np.cumprod(1 - betas)
        self.last = timesteps - 1, bar[-1]
        others = rng.permutation(np.arange(2, timesteps))[:3]
        self.t = np.array([others[0], 0, 1, others[1], others[2]]) if t is None else t
        self.x_start = rng.uniform(-1, 1, (5, 2, 3, 5))
        self.x_t, self.noise = rng.standard_normal((2, *self.x_start.shape))
        before = np.append(1.0, bar[:-1])
        variance = betas * (1 - before) / (1 - bar)
        variance[0] = variance[1]
        self.beta, self.bar, self.bar_prev, variance = (
            a[self.t].reshape(-1, 1, 1, 1) for a in (betas, bar, before, variance)
        )
        self.sigma = np.sqrt(variance)  # at t = 0 that at t = 1

    def call(self, method, *args):
        """What a method of the diffusion gives for numpy arguments, as numpy."""
        tensors = [_tensor(a) if isinstance(a, np.ndarray) else a for a in args]
        return array(call(getattr(self.process, method), *tensors, name=method), method)

    def posterior(self):
        """Mean and variance of x_{t-1}: the product of two normal densities of it.

        x_t given x_{t-1}, and x_{t-1} given x_start: their precisions add. At t = 0 the
        second has no width, and x_{t-1} is x_start.
        """
        width = np.maximum(1 - self.bar_prev, 1e-12)
        variance = 1 / (1 / width + (1 - self.beta) / self.beta)
        from_x_t = np.sqrt(1 - self.beta) * self.x_t / self.beta
        mean = variance * (np.sqrt(self.bar_prev) * self.x_start / width + from_x_t)
        return mean, np.where(self.bar_prev < 1, variance, 0.0)

    def step(self, noise):
        """What p_sample gives, with a right posterior in place of the diffusion's own."""
        mean, variance = self.posterior()
        answer = _tensor(mean), _tensor(variance), _tensor(2 * np.log(self.sigma))
        self.process.q_posterior_mean_variance = lambda x_start, x_t, t: answer
        eps = (self.x_t - np.sqrt(self.bar) * self.x_start) / np.sqrt(1 - self.bar)
        return self.call("p_sample", lambda x_t, t: _tensor(eps), self.x_t, self.t, noise)


def _tensor(values):
    """A tensor of numpy values: float32, steps int64."""
    return paddle.to_tensor(values, dtype="int64" if values.dtype == np.int64 else "float32")


def _wide(numbers):
    """[N, 1, 1, 1] spread over the width, as Python does without the three ones."""
    return numbers.reshape(1, 1, 1, -1)
