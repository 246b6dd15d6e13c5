"""Checks for Task 3: the forward noising, the posterior, and the reverse step."""

import numpy as np
import paddle

from .compare import (
    Wrong,
    array,
    call,
    check_standard_normal,
    check_unchanged,
    compare,
    expect_shape,
    same,
    together,
    verdict,
)

BROADCAST = (
    "the numbers for the images were spread over the width and not over the batch: they "
    "must have the shape [N, 1, 1, 1]"
)
EARLIER = (
    "t is off by one: t = 0 already has one step of noise, so take alpha_bar[t] and not "
    "alpha_bar[t - 1]"
)
LATER = "t is off by one: it counts from 0, so take the numbers at t and not at t + 1"


def check_q_sample(GaussianDiffusion, seed=0):
    """Wrong, with the reason, unless q_sample(x_start, t, noise) is a draw of x_t.

    GaussianDiffusion: the class, made of betas [T]. seed: of the inputs.
    """
    _at_all_steps(_check_q_sample, GaussianDiffusion, seed)


def _check_q_sample(case):
    given = [case.x_start, case.t, case.noise]
    x_t = case.call("q_sample", *given)
    many, last = np.zeros((500, *case.x_start.shape[1:])), len(case.betas) - 1

    def check_own_noise(share):
        drawn = case.call("q_sample", many, np.full(500, last), None, share=share)
        drawn = drawn / np.sqrt(1 - case.alpha_bar(last))
        check_standard_normal(drawn.reshape(500, -1), "q_sample without noise")

    if not same(x_t, case.call("q_sample", *given)):
        check_own_noise(0)
        words = "q_sample draws noise although it is given some; draw only where noise is None"
        raise Wrong(words, 0.75)
    x, noise, t, bar = *given[::2], case.t, case.bar
    signal, rest = np.sqrt(bar), np.sqrt(1 - bar)
    one, two = np.sqrt(1 - case.beta), np.sqrt(case.beta)

    def at(t):
        bar = case.column(case.alpha_bar(t))
        return np.sqrt(bar) * x + np.sqrt(1 - bar) * noise

    mistakes = {
        "the roots are missing: x_t is sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) noise": (
            bar * x + (1 - bar) * noise
        ),
        "the root of 1 - alpha_bar is missing": (signal * x + (1 - bar) * noise, 0.75),
        "the root of alpha_bar is missing": (bar * x + rest * noise, 0.75),
        "the two scales are exchanged: the image gets sqrt(alpha_bar)": rest * x + signal * noise,
        "this is one step only: take the cumulative product alpha_bar where 1 - beta "
        "stands": one * x + two * noise,
        "the scale of the noise is 1 - sqrt(alpha_bar); it must be sqrt(1 - alpha_bar), or "
        "the variance is not kept": signal * x + (1 - signal) * noise,
        "the image is not scaled: it must shrink by sqrt(alpha_bar)": x + rest * noise,
        "the noise is not scaled: it gets sqrt(1 - alpha_bar)": signal * x + noise,
        "no noise was added": (signal * x, 0.25),
        "the noise is subtracted and not added": (signal * x - rest * noise, 0.75),
        EARLIER: np.where(case.noisy, at(t - 1), x),
        f"{EARLIER}, which at t = 0 is the last of all": at(t - 1),
        f"{EARLIER}, or at t = 0 alpha_bar[0]": at(np.maximum(t - 1, 0)),
        LATER: at(t + 1),
        BROADCAST: _wide(signal) * x + _wide(rest) * noise,
    }  # fmt: skip
    terms = {"x_start": x, "noise": noise}
    compare(x_t, at(t), mistakes, "x_t", {"t": case.column(t)}, terms)
    check_own_noise(0.5)
    tensors = {"x_start": _tensor(x), "t": _tensor(t), "noise": _tensor(noise)}
    call(case.process.q_sample, *tensors.values(), name="q_sample")
    check_unchanged(tensors, given)


def check_q_posterior_mean_variance(GaussianDiffusion, seed=0):
    """Wrong, with the reason, unless it gives mean, variance, log variance of x_{t-1}.

    They are compared with what Bayes' rule gives for two normal densities. The log
    variance at t = 0, where the variance is 0, must be finite. Half of the points are
    for the mean, a quarter for each of the others. GaussianDiffusion: the class, made of
    betas [T]. seed: of the inputs.
    """
    _at_all_steps(_check_posterior, GaussianDiffusion, seed)


def _check_posterior(case):
    name = "q_posterior_mean_variance"
    inputs = [_tensor(a) for a in (case.x_start, case.x_t, case.t)]
    result = call(getattr(case.process, name), *inputs, name=name)
    parts = result if isinstance(result, (tuple, list)) else [result]
    checks = [_check_mean, _check_variance, _check_log_variance]
    found = [
        verdict(check, case, array(part, name)) for check, part in zip(checks, parts, strict=False)
    ]
    if len(parts) != 3:
        few = Wrong(f"{name} must return three things: mean, variance and log variance")
        found = [*found, few, few][:2] + [few]
    together(*zip([0.5, 0.25, 0.25], found, strict=True))


def _check_mean(case, mean):
    x, x_t, beta, bar, prev = case.x_start, case.x_t, case.beta, case.bar, case.bar_prev
    of_start = beta * np.sqrt(prev) / (1 - bar)
    of_x_t = (1 - prev) * np.sqrt(1 - beta) / (1 - bar)
    later = np.minimum(case.t + 1, len(case.betas) - 1)
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
        "in the mean, alpha_bar_t stands where alpha_bar_{t-1} belongs": (
            beta * np.sqrt(bar) / (1 - bar) * x + np.sqrt(1 - beta) * x_t
        ),
        "in the mean, the roots are missing": (
            beta * prev / (1 - bar) * x + (1 - prev) * (1 - beta) / (1 - bar) * x_t
        ),
        "in the mean, the term of x_t is missing": of_start * x,
        "in the mean, the term of x_start is missing": of_x_t * x_t,
        f"in the mean, {BROADCAST}": _wide(of_start) * x + _wide(of_x_t) * x_t,
        LATER: case.posterior(x, x_t, later)[0],
    }
    compare(
        mean, case.posterior(x, x_t, case.t)[0], mistakes, "the mean",
        {"t": case.column(case.t)}, {"x_start": x, "x_t": x_t},
    )  # fmt: skip


def _check_variance(case, variance):
    found = case.one_for_each(variance, "the variance")
    beta, bar, prev = (a.ravel() for a in (case.beta, case.bar, case.bar_prev))
    right = case.variance(case.t)
    mistakes = {
        "the variance is beta_t, that of a step forward; the posterior's is beta_t "
        "(1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)": beta,
        "this is the standard deviation, the root of the variance": np.sqrt(right),
        "the variance is upside down: 1 - alpha_bar_{t-1} belongs above, 1 - alpha_bar_t "
        "below": np.divide(beta * (1 - bar), 1 - prev, where=prev < 1,
                           out=np.full_like(bar, np.inf)),
        "the variance is that of x_t given x_0, 1 - alpha_bar_t": 1 - bar,
        "the factor beta_t of the variance is missing": (1 - prev) / (1 - bar),
        "this is the logarithm of the variance": np.log(case.variance(np.maximum(case.t, 1))),
        LATER: case.variance(case.t + 1),
    }  # fmt: skip
    compare(found, right, mistakes, "the variance", {"t": case.t})


def _check_log_variance(case, log_variance):
    found, first = case.one_for_each(log_variance, "the log variance"), case.t == 0
    if not np.isfinite(found[first]).all():
        raise Wrong(
            "the log variance at t = 0 is infinite, because the variance is 0 there: "
            "take that of t = 1 in its place"
        )
    t = case.t[~first]
    right = np.log(case.variance(t))
    mistakes = {
        "the log variance is half of the right one: it is log sigma^2, not log sigma": right / 2,
        "the third result is the standard deviation, not the log variance": np.exp(right / 2),
        "the third result is the variance, not its logarithm": np.exp(right),
        "the log variance is that of beta_t, of a step forward": np.log(case.betas[t]),
        LATER: np.log(case.variance(t + 1)),
    }
    compare(found[~first], right, mistakes, "the log variance", {"t": t})


def check_p_sample(GaussianDiffusion, seed=0):
    """Wrong, with the reason, unless p_sample(model, x_t, t, noise) is a draw of x_{t-1}.

    Its posterior is given to it, so that a mistake there does not count twice. A model
    may predict noise or v, and estimates of x_start beyond [-1, 1] must be clipped.
    GaussianDiffusion: the class, made of betas [T]. seed: of the inputs.
    """
    first = verdict(_at_all_steps, _check_p_sample, GaussianDiffusion, seed)
    wide = _Case(GaussianDiffusion, seed, reach=3.0)
    v = _Case(GaussianDiffusion, seed, prediction="v")
    others = verdict(_check_estimate, wide, _unclipped), verdict(_check_estimate, v, _as_noise)
    # Where the step itself is wrong, only what is known is said of its estimate.
    found = [w for w in (first, *others) if w and (w is first or w.share or not first)]
    if found:
        raise Wrong("; ".join(map(str, found)), min(w.share for w in found))


def _check_estimate(case, mistakes):
    """Wrong unless a step without noise gives the mean that belongs to a clipped x_start."""
    right = case.posterior(np.clip(case.x_start, -1, 1), case.x_t, case.t)[0]
    found = case.step(np.zeros_like(case.noise))
    compare(found, right, mistakes(case), "x_{t-1}", {"t": case.column(case.t)})


def _check_p_sample(case):
    x, noise, start, sigma = case.x_t, case.noise, case.x_start, case.sigma
    t, noisy = case.t, case.noisy
    found, mean = case.step(noise), case.posterior(start, x, t)[0]
    if not same(found, case.step(noise)):
        words = "p_sample draws noise although it is given some; draw only where noise is None"
        raise Wrong(words, 0.75)
    variance, beta = sigma**2, np.sqrt(case.beta)
    everywhere = "noise was added at t = 0: the last step gives the mean", 0.5
    if same(found, mean + sigma * noise):
        last = _Case(case.kind, case.seed, t=np.zeros(5, dtype=np.int64))
        if same(last.step(last.noise), last.x_start):
            words = (
                "one image decides for the whole batch whether noise is added: ask t > 0 of each"
            )
            everywhere = words, 0.75
    late = np.clip(case.start_for(case.alpha_bar(t + 1)), -1, 1)
    mistakes = {
        "sigma^2 is beta_t, the paper's other choice; asked for was the posterior's variance": (
            mean + noisy * beta * noise, 0.75
        ),
        "sigma^2 is beta_t and not the posterior's variance, and noise was added at t = 0": (
            mean + beta * noise
        ),
        everywhere[0]: (mean + sigma * noise, everywhere[1]),
        "no noise was added: only the last step, t = 0, goes without": (mean, 0.25),
        "noise was added at t = 0 and nowhere else: it is the other way round": (
            mean + (1 - noisy) * sigma * noise
        ),
        "no noise was added at t = 1: only t = 0 goes without": (
            mean + (t > 1).reshape(-1, 1, 1, 1) * sigma * noise, 0.75
        ),
        "the variance stands where sigma belongs: sigma is exp(0.5 * log_variance)": (
            mean + noisy * variance * noise
        ),
        "sigma was taken for log-variance: sigma is exp(0.5 * log_variance)": (
            mean + noisy * np.log(variance) * noise
        ),
        "log_variance was taken for the argument of a softplus: sigma is "
        "exp(0.5 * log_variance)": mean + noisy * np.logaddexp(0, np.log(variance)) * noise,
        "log_variance was taken for the argument of a softplus, and noise was added at t = 0: "
        "sigma is exp(0.5 * log_variance)": (
            mean + np.logaddexp(0, np.log(variance)) * noise, 0.25
        ),
        "the variance stands where sigma belongs, and noise was added at t = 0": (
            mean + variance * noise, 0.25
        ),
        "the noise is not scaled: it gets sigma, exp(0.5 * log_variance)": mean + noisy * noise,
        "the noise is subtracted and not added": (mean - noisy * sigma * noise, 0.75),
        "the noise is added to x_t and not to the mean": x + noisy * sigma * noise,
        "this starts from the estimate of x_start; a step leads to x_{t-1}, so start from "
        "the posterior's mean": start + noisy * sigma * noise,
        "this is the estimate of x_start; a step leads to x_{t-1}": (start, 0.25),
        "the whole mask is spread over the width and not over the batch: it must have the "
        "shape [N, 1, 1, 1]": mean + _wide(noisy) * sigma * noise,
        LATER: case.posterior(late, x, t + 1)[0] + np.sqrt(
            case.variance(t + 1).reshape(-1, 1, 1, 1)) * noise,
        f"{LATER}; only the mask does so": case.posterior(late, x, t + 1)[0] + noisy * np.sqrt(
            case.variance(t + 1).reshape(-1, 1, 1, 1)) * noise,
    }  # fmt: skip
    right = mean + noisy * sigma * noise
    terms = {"the mean": mean, "noise": noise}
    compare(found, right, mistakes, "x_{t-1}", {"t": case.column(t)}, terms)

    first, second = case.step(None), case.step(None)
    if same(first, second):
        words = "p_sample without noise gives the same twice: draw noise where it is None"
        raise Wrong(words, 0.5)
    many = _Case(case.kind, case.seed, t=np.full(500, len(case.betas) - 1))
    mean = many.posterior(many.x_start, many.x_t, many.t)[0]
    drawn = (many.step(None) - mean) / many.sigma
    check_standard_normal(drawn.reshape(500, -1), "p_sample without noise")


def _unclipped(case):
    """The mean where estimates of x_start are not clipped."""
    words = (
        "the estimate of x_start is not clipped to [-1, 1], and small errors then grow from step "
        "to step: take the mean that p_mean_variance gives"
    )
    return {words: (case.posterior(case.x_start, case.x_t, case.t)[0], 0.75)}


def _as_noise(case):
    """The mean where a prediction of v is taken for one of the noise, clipped or not."""
    start = case.start_for(case.bar, case.output())
    words = (
        "the model's output was taken for the noise, but with prediction='v' it stands for v: "
        "take the mean that p_mean_variance gives"
    )
    return {
        words: case.posterior(np.clip(start, -1, 1), case.x_t, case.t)[0],
        f"{words}, which is clipped, too": case.posterior(start, case.x_t, case.t)[0],
    }


def check_diffusion_samples(samples, images):
    """Wrong unless samples [N, C, H, W] look, from far away, like images [M, C, H, W].

    Both in [-1, 1]. Compared are the mean image and the spread of the pixels around it,
    which noise, blanks and copies of one image do not share. Two thirds of the points are
    left where they are at most twice as far off.
    """
    samples = array(samples, "the samples")
    expect_shape(samples, (*samples.shape[:1], *images.shape[1:]), "the array of samples")
    if not np.isfinite(samples).all():
        raise Wrong("the samples hold numbers that are infinite or not a number")
    most = np.abs(samples).max()
    if most > 2:
        raise Wrong(
            f"the samples have values of up to {most:.3g}, where images are in [-1, 1]: is x_start "
            "clipped in each step, as p_mean_variance does, and is the noise scaled?"
        )
    off = float(np.sqrt(((samples.mean(0) - images.mean(0)) ** 2).mean()))
    ratio = float(np.sqrt(samples.var(0).mean() / images.var(0).mean()))
    if off > 0.25:
        raise Wrong(
            f"the mean image of the samples is {off:.2f} away from the mean image of the digits "
            "(the root mean square over the pixels), and 0.25 is allowed: is the network trained, "
            "does each step use its own t?",
            2 / 3 if off < 0.5 and 0.5 < ratio < 1.5 else 0,
        )
    if not 0.75 < ratio < 1.25:
        raise Wrong(
            f"the samples vary {ratio:.2f} times as much as the images, where about 1 is right: is "
            "noise added in each step but the last one, and scaled?",
            2 / 3 if 0.5 < ratio < 1.5 else 0,
        )


def _at_all_steps(check, GaussianDiffusion, seed):
    """Run the check of a case, and where it fails, see whether it is for the first step only."""
    try:
        check(_Case(GaussianDiffusion, seed))
    except Wrong as wrong:
        if wrong.share >= 0.5:
            raise
        later = verdict(check, _Case(GaussianDiffusion, seed, first=2))
        if later is None:
            words = "it is right but for the first steps. Before the step t = 0, alpha_bar is 1"
            raise Wrong(f"{words}; at t = 0 or 1, {wrong}", 0.5) from None
        raise (wrong if wrong.share else later) from None


class _Case:
    """A small diffusion and inputs for it, drawn anew for each seed.

    Each image has a step of its own, `first` and the next among them, unless t is given;
    none is the last step. The batch is as large as the images are wide: numbers spread
    over the wrong one are then wrong, and no error. The network foretells what leads from
    x_start to x_t; x_start lies within [-reach, reach].
    """

    def __init__(self, kind, seed, t=None, first=0, prediction="eps", reach=1.0):
        rng = np.random.default_rng(seed)
        self.kind, self.seed, self.prediction = kind, seed, prediction
        timesteps = int(rng.integers(8, 12))
        self.betas = rng.uniform(0.05, 0.4, timesteps)
        settings = {} if prediction == "eps" else {"prediction": prediction}
        self.process = call(lambda: kind(self.betas, **settings), name="GaussianDiffusion(betas)")
        others = rng.permutation(np.arange(first + 2, timesteps - 1))[:3]
        self.t = np.array([others[0], first, first + 1, *others[1:]]) if t is None else t
        shape = len(self.t), 2, 3, 5
        self.x_start = rng.uniform(-reach, reach, shape)
        self.x_t, self.noise = rng.standard_normal((2, *shape))
        self.beta, self.bar, self.bar_prev = (
            self.column(a)
            for a in (self.betas[self.t], self.alpha_bar(self.t), self.before(self.t))
        )
        self.sigma = self.column(np.sqrt(self.variance(np.maximum(self.t, 1))))
        self.noisy = self.column(self.t > 0)

    def alpha_bar(self, t):
        """alpha_bar at these steps; -1 is the last one."""
        return np.cumprod(1 - self.betas)[t]

    def before(self, t):
        """alpha_bar one step earlier: 1 at t = 0."""
        return np.append(1.0, np.cumprod(1 - self.betas))[t]

    def variance(self, t):
        """That of x_{t-1} given x_t and x_start, at these steps."""
        return self.betas[t] * (1 - self.before(t)) / (1 - self.alpha_bar(t))

    def column(self, numbers):
        """One number for each image, ready to scale them."""
        return numbers.reshape(-1, 1, 1, 1)

    def one_for_each(self, values, name):
        """One number for each image, where the shape is [N], [N, 1, 1, 1] or x_t's."""
        n = len(self.t)
        if values.shape not in [(n,), (n, 1, 1, 1), self.x_t.shape]:
            expect_shape(values, [n, 1, 1, 1], name)
        return values.reshape(n, -1)[:, 0]

    def call(self, method, *args, share=0.0):
        """What a method of the diffusion gives for numpy arguments, as numpy."""
        tensors = [_tensor(a) if isinstance(a, np.ndarray) else a for a in args]
        function = getattr(self.process, method)
        return array(call(function, *tensors, name=method, share=share), method)

    def posterior(self, x_start, x_t, t):
        """Mean and variance of x_{t-1}: the product of two normal densities of it.

        x_t given x_{t-1}, and x_{t-1} given x_start: their precisions add. At t = 0 the
        second has no width, and x_{t-1} is x_start.
        """
        beta, before = self.column(self.betas[t]), self.column(self.before(t))
        width = np.maximum(1 - before, 1e-12)
        variance = 1 / (1 / width + (1 - beta) / beta)
        mean = variance * (np.sqrt(before) * x_start / width + np.sqrt(1 - beta) * x_t / beta)
        return mean, np.where(before < 1, variance, 0.0)

    def output(self):
        """What the network says of x_t."""
        signal, rest = np.sqrt(self.bar), np.sqrt(1 - self.bar)
        eps = (self.x_t - signal * self.x_start) / rest
        return eps if self.prediction == "eps" else signal * eps - rest * self.x_start

    def start_for(self, bar, eps=None):
        """The estimate of x_start from the network's noise, or this one, with this alpha_bar."""
        bar = bar.reshape(-1, 1, 1, 1)
        return (self.x_t - np.sqrt(1 - bar) * (self.output() if eps is None else eps)) / np.sqrt(
            bar
        )

    def step(self, noise):
        """What p_sample gives, with a right posterior in place of the diffusion's own."""

        def posterior(x_start, x_t, t):
            x_start, x_t, t = x_start.numpy(), x_t.numpy(), t.numpy()
            mean, variance = self.posterior(x_start, x_t, t)
            log_variance = np.log(self.column(self.variance(np.maximum(t, 1))))
            return _tensor(mean), _tensor(variance), _tensor(log_variance)

        self.process.q_posterior_mean_variance = posterior
        output = self.output()
        return self.call("p_sample", lambda x_t, t: _tensor(output), self.x_t, self.t, noise)


def _tensor(values):
    """A tensor of numpy values: float32, steps int64."""
    return paddle.to_tensor(values, dtype="int64" if values.dtype == np.int64 else "float32")


def _wide(numbers):
    """[N, 1, 1, 1] spread over the width, as Python does without the three ones."""
    return numbers.reshape(1, 1, 1, -1)
