import ast
from itertools import product
from pathlib import Path

import numpy as np
import paddle
import pytest
import sympy
from bookbuild.cells import CELL
from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule, guided
from numpy.polynomial.hermite_e import hermegauss
from scipy import stats
from scipy.integrate import quad

log_normal = stats.norm.logpdf
NODE, WEIGHT = hermegauss(12)
WEIGHT = WEIGHT / WEIGHT.sum()  # of a standard normal variable
PAIR = np.stack(np.meshgrid(NODE, NODE), axis=-1).reshape(-1, 2)  # the same for two of them
PAIR_WEIGHT = np.outer(WEIGHT, WEIGHT).ravel()


def divergence(m1, s1, m2, s2):
    """KL of two normal distributions on a line, its definition by quadrature."""

    def integrand(x):
        log_p = log_normal(x, m1, s1)
        return np.exp(log_p) * (log_p - log_normal(x, m2, s2))

    return quad(integrand, m1 - 10 * s1, m1 + 10 * s1, epsabs=1e-12)[0]


def divergence_of_pairs(m1, s1, m2, s2):
    """KL of normal images of two pixels, means [2], by the Gauss-Hermite rule in the plane."""
    x = m1 + s1 * PAIR
    return PAIR_WEIGHT @ (log_normal(x, m1, s1) - log_normal(x, m2, s2)).sum(axis=1)


def two_pixels(values):
    """Images of two pixels [N, 2] as the code takes them: float32 [N, 1, 1, 2]."""
    return paddle.to_tensor(values, dtype="float32").reshape([-1, 1, 1, 2])


def chain(seed):
    """Three states, T = 3: the paths with q(x_1, x_2, x_3 | x_0) and p(x_0, ..., x_3)."""
    rng = np.random.default_rng(seed)
    q = rng.dirichlet(np.ones(3), (3, 3))  # q[t - 1][x_{t-1}][x_t]
    p = rng.dirichlet(np.ones(3), (3, 3))  # p[t - 1][x_t][x_{t-1}]
    start = rng.dirichlet(np.ones(3))  # p(x_3)
    of_q, of_p = np.zeros([3] * 4), np.zeros([3] * 4)
    for a, b, c, d in product(range(3), repeat=4):
        of_q[a, b, c, d] = q[0, a, b] * q[1, b, c] * q[2, c, d]
        of_p[a, b, c, d] = start[d] * p[2, d, c] * p[1, c, b] * p[0, b, a]
    return of_q, of_p, start, p


def bounds(of_q, of_p):
    """The mean of log q / p over the paths from each x_0: [3]."""
    return (of_q * np.log(of_q / of_p)).sum(axis=(1, 2, 3))


@pytest.mark.checks("eq-diffusion-bound", "bound on the evidence of a diffusion model")
def test_diffusion_bound(agree):
    """All paths of a chain of three states: never too low, and exact for the right $q$."""
    for seed in range(20):
        of_q, of_p, _, _ = chain(seed)
        surprise = -np.log(of_p.sum(axis=(1, 2, 3)))
        agree(-np.log((of_q * (of_p / of_q)).sum(axis=(1, 2, 3))), surprise, 1e-12)
        agree(np.maximum(0, surprise - bounds(of_q, of_p)), np.zeros(3), 1e-12)
        posterior = of_p / of_p.sum(axis=(1, 2, 3), keepdims=True)
        agree(bounds(posterior, of_p), surprise, 1e-12)


@pytest.mark.checks("eq-bound-terms", "the bound as a sum of three terms")
def test_bound_terms(agree):
    """All paths of a chain of three states, every probability counted from the paths."""
    for seed in range(20):
        of_q, of_p, start, p = chain(seed)
        for x_0 in range(3):
            path = of_q[x_0]  # [x_1, x_2, x_3]
            last = path.sum(axis=(0, 1))
            total = (last * np.log(last / start)).sum()
            for t, pair in ((2, path.sum(axis=2)), (3, path.sum(axis=0))):  # [x_{t-1}, x_t]
                at_t = pair.sum(axis=0)
                back = pair / at_t
                total += (at_t * (back * np.log(back / p[t - 1].T)).sum(axis=0)).sum()
            total -= (path.sum(axis=(1, 2)) * np.log(p[0, :, x_0])).sum()
            agree(total, bounds(of_q, of_p)[x_0], 1e-12)


@pytest.mark.checks("eq-two-levels", "the bound of a VAE with two levels of codes")
def test_two_levels(agree):
    """Sums over all codes of a model whose levels differ in size, from random probabilities."""
    rng = np.random.default_rng(0)
    images, low, high = 3, 2, 4  # how many values x, z_1 and z_2 have
    prior = rng.dirichlet(np.ones(high))
    p_low, p_image = rng.dirichlet(np.ones(low), high), rng.dirichlet(np.ones(images), low)
    q_low, q_high = rng.dirichlet(np.ones(low), images), rng.dirichlet(np.ones(high), low)
    for x in range(images):
        joint = prior * p_low.T * p_image[:, x, np.newaxis]  # [z_1, z_2]
        path = q_low[x][:, np.newaxis] * q_high
        of_high = path.sum(axis=0)
        back = path / of_high
        bound = (
            (of_high * np.log(of_high / prior)).sum()
            + (of_high * (back * np.log(back / p_low.T)).sum(axis=0)).sum()
            - (q_low[x] * np.log(p_image[:, x])).sum()
        )
        agree(bound, (path * np.log(path / joint)).sum(), 1e-12)
        agree(min(0, bound + np.log(joint.sum())), 0, 1e-12)


@pytest.mark.checks("eq-bound-levels", "the bound where all decoders are the best normal ones")
def test_bound_levels(agree):
    """The definition of the bound, its three states on a grid, for data with two bumps."""
    x = np.linspace(-7, 7, 211)
    data = stats.norm.pdf(x, -1, 0.4) + 2 * stats.norm.pdf(x, 1.2, 0.3)
    betas = (0.4, 0.7)
    q = [data / data.sum()]
    q += [stats.norm.pdf(x, np.sqrt(1 - b) * x[:, np.newaxis], b**0.5) for b in betas]
    q[1:] = [step / step.sum(axis=1, keepdims=True) for step in q[1:]]  # [x_{t-1}, x_t]
    path = q[0][:, np.newaxis, np.newaxis] * q[1][:, :, np.newaxis] * q[2]
    h = x[1] - x[0]
    of_prior, formula = log_normal(x), -path.sum(axis=(0, 1)) @ log_normal(x)
    total = -of_prior
    for pair, step, beta, axes in (
        (path.sum(axis=2), q[1], betas[0], np.s_[:, :, np.newaxis]),
        (path.sum(axis=0), q[2], betas[1], np.s_[np.newaxis]),
    ):
        back = pair / pair.sum(axis=0)  # [x_{t-1}, x_t]
        mean = x @ back
        variance = x**2 @ back - mean**2
        decoder = log_normal(x[:, np.newaxis], mean, variance**0.5)
        total = total + (np.log(np.maximum(step, 1e-300) / h) - decoder)[axes]
        formula += pair.sum(axis=0) @ np.log(variance / beta) / 2
    agree(formula, (path * total).sum(), 1e-6)


@pytest.mark.checks("eq-bound-prior", "prior term")
def test_bound_prior(agree):
    """The definition of the divergence by quadrature, for images of three pixels."""
    x_0 = np.array([-1.0, 0.3, 0.8])
    for left in (0.4, 0.05, 1e-3):
        each = [divergence(np.sqrt(left) * x, np.sqrt(1 - left), 0, 1) for x in x_0]
        formula = (left * (x_0**2).sum() - 3 * (left + np.log(1 - left))) / 2
        agree(formula, sum(each), 1e-9)


@pytest.mark.checks("eq-bound-means", "divergence of one step")
def test_bound_means(agree):
    """The definition of the divergence by quadrature in the plane of two pixels, between the code's
    posteriors."""
    diffusion = GaussianDiffusion(cosine_beta_schedule(20), clip=10)
    for step in (2, 5, 12, 20):
        t = paddle.to_tensor([step - 1])
        x_0, guess, x_t = map(two_pixels, ([0.7, -0.5], [-0.2, 0.1], [0.4, -1.0]))
        mean, variance, _ = diffusion.q_posterior_mean_variance(x_0, x_t, t)
        noise = diffusion.predict_noise_from_start(x_t, t, guess)
        other = diffusion.p_mean_variance(lambda x, t, e=noise: e, x_t, t)[0]
        mean, other = (m.numpy().ravel().astype(float) for m in (mean, other))
        variance = variance.item()
        formula = ((mean - other) ** 2).sum() / (2 * variance)
        found = divergence_of_pairs(mean, variance**0.5, other, variance**0.5)
        agree(found / formula, 1.0, 1e-6)


ALPHA, BEFORE, ERROR = sympy.symbols("alpha bar_before error", positive=True)
AFTER = ALPHA * BEFORE  # alpha-bar of step t; BEFORE is that of step t - 1
RATIO_BEFORE, RATIO = BEFORE / (1 - BEFORE), AFTER / (1 - AFTER)
VARIANCE = 1 / (ALPHA / (1 - ALPHA) + 1 / (1 - BEFORE))  # precisions add
# The posterior mean moves with x_0 by its precision's share; ERROR is |x_0 - estimate|^2.
TERM = (VARIANCE * sympy.sqrt(BEFORE) / (1 - BEFORE)) ** 2 * ERROR / (2 * VARIANCE)


@pytest.mark.checks("eq-bound-step", "divergence of one step by the image's error")
def test_bound_step(agree):
    """SymPy, from the precisions of the step and of what is known before it."""
    agree.exactly((RATIO_BEFORE - RATIO) * ERROR / 2, TERM)


@pytest.mark.checks("eq-bound-eps", "divergence of one step by the noise's error")
def test_bound_eps(agree):
    """SymPy, from the precisions of the step and of what is known before it."""
    of_noise = AFTER * ERROR / (1 - AFTER)  # x_0 and the noise share one x_t
    agree.exactly((RATIO_BEFORE / RATIO - 1) * of_noise / 2, TERM)


@pytest.mark.checks("eq-bound-v", "divergence of one step by the error of $v$")
def test_bound_v(agree):
    """SymPy, from the precisions of the step and of what is known before it."""
    shift, a, b = sympy.sqrt(ERROR), sympy.sqrt(AFTER), sympy.sqrt(1 - AFTER)
    of_v = (a * (-a * shift / b) - b * shift) ** 2  # v = a eps - b x_0, both moved
    agree.exactly((1 - ALPHA) * RATIO_BEFORE * of_v / 2, TERM)


@pytest.mark.checks("eq-simple-weights", "losses as errors of $v$")
def test_simple_weights(agree):
    """Errors of the code's image for right and wrong $v$ at five steps, of its noise at four."""
    diffusion = GaussianDiffusion(cosine_beta_schedule(1000), prediction="v")
    t = paddle.to_tensor([0, 100, 500, 800, 950])
    rng = np.random.default_rng(0)
    x_t, v, wrong = (
        paddle.to_tensor(rng.standard_normal((5, 1, 1, 1)).astype("float32")) for _ in range(3)
    )
    left = np.cumprod(1 - cosine_beta_schedule(1000))[t.numpy()]
    starts = [diffusion.predict_start_from_v(x_t, t, u) for u in (v, wrong)]
    noises = [diffusion.predict_noise_from_start(x_t, t, x) for x in starts]
    square = (v - wrong).square().numpy().ravel()
    agree((starts[0] - starts[1]).square().numpy().ravel() / square, 1 - left, 1e-5)
    # From the image, the noise at the first step is known to three digits only in float32.
    agree((noises[0] - noises[1]).square().numpy().ravel()[1:] / square[1:], left[1:], 1e-4)


@pytest.mark.checks("eq-bound-total", "the bound as a sum of errors of $v$")
def test_bound_total(agree):
    r"""The three terms for two pixels and $T = 6$: Gauss-Hermite in the plane, SciPy."""
    diffusion = GaussianDiffusion(cosine_beta_schedule(6), prediction="v", clip=1e6)
    left, betas, x_0 = diffusion.alphas_cumprod, diffusion.betas, np.array([0.7, -0.4])

    def network(x, t):
        return 0.3 * x + 0.2 * x[..., [1, 0]] - 0.1  # every pixel counts for both

    total = divergence_of_pairs(np.sqrt(left[-1]) * x_0, np.sqrt(1 - left[-1]), 0, 1)
    formula = total + 2 / 2 * np.log(2 * np.pi * (1 - left[0]))
    for i in range(6):
        x_t = np.sqrt(left[i]) * x_0 + np.sqrt(1 - left[i]) * PAIR
        v = np.sqrt(left[i]) * PAIR - np.sqrt(1 - left[i]) * x_0
        weight = 0.5 if i == 0 else 0.5 * betas[i] * left[i - 1] / (1 - left[i - 1])
        formula += weight * (PAIR_WEIGHT @ ((v - network(x_t, i)) ** 2).sum(axis=1))
        images, known = two_pixels(x_t), two_pixels(np.tile(x_0, (len(PAIR), 1)))
        t = paddle.full([len(PAIR)], i, dtype="int64")
        mean, variance, _, start = diffusion.p_mean_variance(network, images, t)
        if i == 0:
            each = -log_normal(x_0, start.numpy().reshape(-1, 2), np.sqrt(1 - left[0])).sum(axis=1)
        else:
            target = diffusion.q_posterior_mean_variance(known, images, t)[0]
            scale = np.sqrt(variance.numpy().ravel()[0])
            means = zip(target.numpy().reshape(-1, 2), mean.numpy().reshape(-1, 2), strict=True)
            each = [divergence_of_pairs(a, scale, b, scale) for a, b in means]
        total += PAIR_WEIGHT @ each
    agree(formula, total, 1e-4)


@pytest.mark.checks("eq-bound-variance", "divergence of one step for another variance")
def test_bound_variance(agree):
    """The definition by quadrature in the plane of two pixels, for 3 variances at four steps."""
    diffusion = GaussianDiffusion(cosine_beta_schedule(20))
    left, error = diffusion.alphas_cumprod, np.array([0.9, -0.4])
    ratio = left / (1 - left)
    for i in (1, 4, 11, 18):
        posterior = diffusion.posterior_variance[i]
        shift = diffusion.posterior_mean_coef1[i] * error
        for variance in (posterior, diffusion.betas[i], 3 * posterior):
            r = posterior / variance
            square = (error**2).sum()
            formula = 2 / 2 * (r - 1 - np.log(r)) + r / 2 * (ratio[i - 1] - ratio[i]) * square
            found = divergence_of_pairs(np.zeros(2), posterior**0.5, shift, variance**0.5)
            agree(found / formula, 1.0, 1e-7)


@pytest.mark.checks("eq-gaussian-error", "error of the best estimate of a normal pixel")
def test_gaussian_error(agree):
    """SymPy: what a linear regression of $x_0$ on $x_t$ leaves of its variance."""
    c, left = sympy.symbols("c left", positive=True)
    covariance, variance = sympy.sqrt(left) * c**2, left * c**2 + 1 - left
    rest = c**2 - covariance**2 / variance
    agree.exactly(1 / (1 / c**2 + left / (1 - left)), rest)
    agree.exactly(c**2 / (1 + c**2 * left / (1 - left)), rest)


@pytest.mark.checks("eq-bound-draws", "a weighted sum as a mean over drawn steps")
def test_bound_draws(agree):
    """Monte Carlo: 200,000 draws of five steps, against the sum."""
    rng = np.random.default_rng(0)
    weight, error = np.array([0.5, 0.6, 0.2, 0.05, 0.01]), np.array([0.9, 0.5, 0.1, 0.2, 0.3])
    t = rng.choice(5, 200_000, p=weight / weight.sum())
    noisy = error[t] * rng.standard_normal(len(t)) ** 2
    agree.in_mean(weight.sum() * noisy, (weight * error).sum())


@pytest.mark.checks("eq-bound-clip", "what clipping does to the error of an estimate")
def test_bound_clip(agree):
    """1,000 random images with estimates far out of their range: the clipped is never farther."""
    rng = np.random.default_rng(0)
    x_0, estimate = rng.uniform(-1, 1, (1000, 4)), 2 * rng.standard_normal((1000, 4))
    before = ((x_0 - estimate) ** 2).sum(axis=1)
    after = ((x_0 - estimate.clip(-1, 1)) ** 2).sum(axis=1)
    assert (after < before).mean() > 0.9
    agree(np.maximum(0, after - before), np.zeros(1000), 0)


def of_the_chapter(**given):
    """What the chapter's cells define to measure the bound, for another process and network."""
    page = (Path(__file__).parents[2] / "book/diffusion-bound.md").read_text("utf-8")
    names = {"prior_term", "a_bar", "snr", "weight", "quotient", "dequantised"}
    names |= {"squared_errors_of_v", "bits_per_dimension"}
    found = {"np": np, "paddle": paddle, "guided": guided, **given}
    for node in (node for cell in CELL.finditer(page) for node in ast.parse(cell["code"]).body):
        name = getattr(node, "name", None) or ast.unparse(getattr(node, "targets", [node])[0])
        if name in names:
            exec(compile(ast.Module([node], []), "diffusion-bound.md", "exec"), found)
    return found


@pytest.mark.checks("eq-bound-clip")
def test_the_bound_that_the_chapter_measures_is_of_the_clipped_model(agree):
    """The chapter's code for one pixel and $T = 6$: divergences of the sampler's own steps."""
    diffusion = GaussianDiffusion(cosine_beta_schedule(6), prediction="v")
    left, n, image = diffusion.alphas_cumprod, 20_000, 0.8

    def network(x, t, labels=None):
        return 0 * x - 1.5  # far out at the late steps

    code = of_the_chapter(diffusion=diffusion, unet=network, D=1)
    images = np.full((n, 1, 1, 1), image, "float32")
    drawn = code["squared_errors_of_v"](images, np.zeros(n, "int64"), 1)
    noise = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)
    for variances in (diffusion.posterior_variance, diffusion.betas):
        total = []
        for x_0 in (np.floor(256 * image) + np.arange(0.1, 1, 0.2)) / 128 - 1:
            nats = divergence(np.sqrt(left[-1]) * x_0, np.sqrt(1 - left[-1]), 0, 1)
            for i in range(6):
                x_t = np.sqrt(left[i]) * x_0 + np.sqrt(1 - left[i]) * noise
                x_t = paddle.to_tensor(x_t, dtype="float32").reshape([-1, 1, 1, 1])
                t = paddle.full([len(noise)], i, dtype="int64")
                mean, _, _, start = diffusion.p_mean_variance(network, x_t, t)
                if i == 0:
                    scale = np.sqrt(1 - left[0])
                    nats -= log_normal(x_0, start.numpy().ravel(), scale).mean()
                    continue
                x_start = paddle.full_like(x_t, float(x_0))
                target, s2, _ = diffusion.q_posterior_mean_variance(x_start, x_t, t)
                s2, shift = s2.numpy().ravel()[0], (target - mean).numpy().ravel()
                kl = np.log(variances[i] / s2) + (s2 + shift**2) / variances[i] - 1
                nats += kl.mean() / 2
            total.append(nats)
        quotient = np.append(1.0, diffusion.posterior_variance[1:] / variances[1:])
        bits = code["bits_per_dimension"](images, *drawn, quotient)
        agree.in_mean(bits, np.mean(total) / np.log(2) + 7)


@pytest.mark.checks("eq-dequantisation", "from a density to the probability of a level")
def test_dequantisation(agree):
    """Both sides by quadrature, for the 256 levels of one pixel and of two that depend on each
    other; equal for an even density."""
    h = 2 / 256
    bent = stats.truncnorm(-3, 5, loc=-0.25, scale=0.25)
    for density, exact in ((bent.pdf, False), (lambda x: 0.5, True)):
        for k in range(0, 256, 15):
            chance = quad(density, h * k - 1, h * (k + 1) - 1, epsabs=1e-14)[0]
            mean = quad(lambda u, k=k, p=density: -np.log2(p(h * (k + u) - 1)), 0, 1)[0]
            over = mean + np.log2(1 / h) + np.log2(chance)
            agree(over if exact else min(0.0, over), 0.0, 1e-9)
    node, weight = np.polynomial.legendre.leggauss(12)
    u, weight = np.stack(np.meshgrid(node, node), axis=-1) / 2 + 0.5, np.outer(weight, weight) / 4
    pair = stats.multivariate_normal([-0.25, 0.1], [[0.06, 0.03], [0.03, 0.05]])
    for density, exact in ((pair.pdf, False), (lambda x: 0.25 + 0 * x[..., 0], True)):
        for k in ((90, 140), (20, 200), (0, 255)):
            low, high = h * np.array(k) - 1, h * (np.array(k) + 1) - 1
            chance = (weight * density(low + (high - low) * u)).sum() * np.prod(high - low)
            mean = -(weight * np.log2(density(h * (np.array(k) + u) - 1))).sum()
            over = mean + 2 * np.log2(1 / h) + np.log2(chance)
            agree(over if exact else min(0.0, over), 0.0, 1e-9)


@pytest.mark.checks("eq-bound-ho", "weight of the noise's error as first published")
def test_bound_ho(agree):
    """SymPy, all three forms."""
    ho = (1 - ALPHA) ** 2 / (2 * VARIANCE * ALPHA * (1 - AFTER))
    agree.exactly(ho, (1 - ALPHA) / (2 * ALPHA * (1 - BEFORE)))
    agree.exactly(ho, (RATIO_BEFORE / RATIO - 1) / 2)


@pytest.mark.checks("eq-bound-label", "bound through the true label alone")
def test_bound_label(agree):
    """Three classes of normal images on a line, at 200 random images: never too low. The density is
    the slope of the distribution function."""
    rng = np.random.default_rng(0)
    share, centre = np.array([0.2, 0.5, 0.3]), np.array([-2.0, 0.0, 1.0])
    for _ in range(200):
        y = rng.choice(3, p=share)
        x = centre[y] + rng.standard_normal()
        low, high = (share @ stats.norm.cdf(x + step, centre, 1) for step in (-1e-4, 1e-4))
        surprise = -np.log(share @ stats.norm.pdf(x, centre, 1))
        agree(surprise, -np.log((high - low) / 2e-4), 1e-6)
        bound = -np.log(share[y]) - log_normal(x, centre[y], 1)
        agree(max(0.0, surprise - bound), 0.0, 1e-12)


@pytest.mark.checks("eq-bound-integral", "the bound of a normal pixel in the limit")
def test_bound_integral(agree):
    """Quadrature, and the mutual information from the entropies of $x_t$."""
    for c in (0.3, 1.0, 2.0):
        for end in (0.5, 20.0, 300.0):
            integral = quad(lambda u, c=c: c**2 / (1 + c**2 * u), 0, end, epsabs=1e-12)[0] / 2
            scaled = stats.norm(0, np.sqrt(1 + end * c**2)).entropy()
            agree(np.log(1 + c**2 * end) / 2, integral, 1e-9)
            agree(integral, scaled - stats.norm(0, 1).entropy(), 1e-9)
