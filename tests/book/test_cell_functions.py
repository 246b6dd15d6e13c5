"""Functions that chapters define in their cells compute what they say."""

import statistics
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from cells import functions
from scipy import optimize, special, stats
from scipy.integrate import quad
from scipy.spatial.distance import cdist

from genbook.diffusion import GaussianDiffusion

BETAS = np.array([0.1, 0.2, 0.3, 0.4])


def a_process(prediction="eps", clip=100.0):
    """A process of four steps that clips nothing."""
    return GaussianDiffusion(BETAS, prediction=prediction, clip=clip)


def tensor(numbers):
    return paddle.to_tensor(np.asarray(numbers, dtype="float32"))


def mean_noise(x, alpha_bar, density):
    """E[eps | x] for an x_0 with this density, by sums over a fine grid."""
    x_0 = np.linspace(-8, 8, 8001)
    noise = (x - np.sqrt(alpha_bar) * x_0) / np.sqrt(1 - alpha_bar)
    return np.average(noise, weights=density(x_0) * stats.norm.pdf(noise))


def kl_by_quadrature(p, q):
    """KL(p || q) in nats of two frozen normal distributions."""
    low, high = p.mean() - 12 * p.std(), p.mean() + 12 * p.std()
    return quad(lambda x: p.pdf(x) * (p.logpdf(x) - q.logpdf(x)), low, high)[0]


# Diffusion: the bound


def test_bound_and_evidence_are_those_of_the_joint_normal_distributions():
    c, process = 0.7, a_process()
    variances = np.array([0.05, 0.2, 0.3])
    size = len(BETAS) + 1
    # q: x_0, then one noisier step after the other, as a linear map of independent noise
    q = np.zeros((size, size))
    q[0, 0] = c
    for t, beta in enumerate(BETAS, 1):
        q[t] = np.sqrt(1 - beta) * q[t - 1]
        q[t, t] = np.sqrt(beta)
    q = q @ q.T
    # p: from x_T down, each step with the regression of q as its mean
    p = np.zeros((size, size))
    p[-1, -1] = 1
    for t, variance in zip(range(size - 2, -1, -1), [*variances[::-1], 1 - 0.9], strict=True):
        p[t] = q[t, t + 1] / q[t + 1, t + 1] * p[t + 1]
        p[t, t] = np.sqrt(variance)
    p = p @ p.T

    def cross_entropy(q, p):
        return 0.5 * np.linalg.slogdet(2 * np.pi * p)[1] + 0.5 * np.trace(np.linalg.solve(p, q))

    entropy = cross_entropy(q, q) - cross_entropy(q[:1, :1], q[:1, :1])  # of the steps, given x_0
    expected = cross_entropy(q, p) - entropy, cross_entropy(q[:1, :1], p[:1, :1])
    code = functions("diffusion-bound", weight=None)
    assert np.allclose(code.bound_and_evidence(process, c, variances), expected)


def test_above_entropy_is_that_of_paths_on_a_grid():
    code = functions("diffusion-bound", weight=None, s=0.3, x=np.linspace(-7, 7, 1401))
    betas = GaussianDiffusion([0.5, 0.8]).betas
    code.above_entropy.__globals__["cosine_beta_schedule"] = lambda levels: betas
    x = np.linspace(-5, 5, 251)
    data = stats.norm.pdf(x, -1, 0.3) + stats.norm.pdf(x, 1, 0.3)
    joint = data / data.sum()
    bound = 0.0
    for beta in betas:
        step = stats.norm.pdf(x, np.sqrt(1 - beta) * x[:, np.newaxis], beta**0.5)
        pair = joint[:, np.newaxis] * step / step.sum(axis=1, keepdims=True)
        joint = pair.sum(axis=0)
        mean = x @ pair / joint
        decoder = stats.norm.logpdf(x[:, np.newaxis], mean, np.sqrt(x**2 @ pair / joint - mean**2))
        bound += (
            pair * (stats.norm.logpdf(x[:, np.newaxis] * np.sqrt(1 - beta), x, beta**0.5) - decoder)
        ).sum()
    bound -= joint @ stats.norm.logpdf(x)
    entropy = special.entr(data / 2).sum() * (x[1] - x[0])
    assert np.isclose(code.above_entropy(2), bound - entropy, atol=1e-5)


def test_prior_term_is_the_divergence_of_the_last_state_from_noise():
    x_start, alpha_bar = np.array([[0.5, -1.0, 0.3], [1.0, 1.0, 0.0]]), 0.4
    expected = [
        sum(
            kl_by_quadrature(stats.norm(np.sqrt(0.4) * x, np.sqrt(0.6)), stats.norm())
            for x in image
        )
        for image in x_start
    ]
    found = functions("diffusion-bound", weight=None).prior_term(x_start, alpha_bar)
    assert np.allclose(found, expected)


def test_dequantised_spreads_each_level_over_its_part():
    images = np.repeat([0.0, 0.5, 1.0], 10_000)
    code = functions("diffusion-bound", weight=None)
    parts = code.dequantised(images, np.random.default_rng(0)).reshape(3, -1)
    for part, level in zip(parts, (0, 128, 255), strict=True):
        low = -1 + level * 2 / 256
        assert np.allclose(
            np.quantile(part, [0, 0.5, 1]), low + np.array([0, 1, 2]) / 256, atol=1e-4
        )


def test_levels_are_those_of_eight_bits():
    images = np.array([[[0.0, 1 / 256]], [[255 / 256, 1.0]]])
    found = functions("diffusion-bound", weight=None).levels(images)
    assert found.tolist() == [[0, 1], [255, 255]]


def test_with_error_is_the_error_of_a_mean():
    assert functions("diffusion-bound", weight=None).with_error(np.arange(1.0, 6.0)) == (
        "3.000 ± 0.707"  # sqrt(2.5 / 5)
    )


# Diffusion: the way back


def test_earlier_weighs_the_normal_distributions_of_each_image():
    process, x_t, images = a_process(), 0.4, (-1.0, 0.3)
    a_s, a_t = 0.9 * 0.8, 0.9 * 0.8 * 0.7 * 0.6
    x_s, expected, weights = np.linspace(-7, 7, 2801), 0.0, 0.0
    for x_0 in images:
        # x_s and x_t are jointly normal, given x_0
        covariance = np.sqrt(a_t / a_s) * (1 - a_s)
        mean = np.sqrt(a_s) * x_0 + covariance / (1 - a_t) * (x_t - np.sqrt(a_t) * x_0)
        deviation = np.sqrt(1 - a_s - covariance**2 / (1 - a_t))
        weight = stats.norm.pdf(x_t, np.sqrt(a_t) * x_0, np.sqrt(1 - a_t))
        expected += weight * stats.norm.pdf(x_s, mean, deviation)
        weights += weight
    found = functions("diffusion-reverse", diffusion=process).earlier(x_s, 2, x_t, 4, images)
    assert np.allclose(found, expected / weights)


def test_best_noise_is_the_mean_noise_of_a_normal_pixel():
    process, c = a_process(), 0.5
    best = functions("diffusion-reverse", exact=process, c=c).best_noise
    for t in (0, 3):
        alpha_bar = process.alphas_cumprod[t]
        expected = mean_noise(0.8, alpha_bar, lambda x: stats.norm.pdf(x, 0, c))
        assert np.isclose(best(0.8, [t]), expected)


def test_predicted_spread_is_what_the_sampler_leaves_of_its_noise():
    process = a_process()
    code = functions("diffusion-reverse", exact=process, c=0.5)
    for steps in (2, 4):
        paddle.seed(0)
        states = list(process.ddim_sample_progressive(code.best_noise, [3, 1, 1, 1], steps))
        # a linear sampler without noise multiplies all by one number
        assert np.allclose(
            states[-1].numpy(), code.predicted_spread(steps) * states[0].numpy(), rtol=1e-5
        )


def test_best_of_training_set_has_the_least_squared_error():
    process = a_process("v")
    flat = np.array([[-1.0, -0.5], [0.6, 0.2], [1.0, -1.0]])
    x_t, t = np.array([[0.2, -0.3], [-0.4, 0.9]]), 2
    signal, noise = np.sqrt(process.alphas_cumprod[t]), np.sqrt(1 - process.alphas_cumprod[t])
    expected = []
    for x in x_t:
        weight = [stats.norm.pdf(x, signal * x_0, noise).prod() for x_0 in flat]
        each = [signal * (x - signal * x_0) / noise - noise * x_0 for x_0 in flat]  # v
        expected.append(np.average(each, axis=0, weights=weight))
    code = functions("diffusion-reverse", diffusion=process, flat=flat)
    found = code.best_of_training_set(tensor(x_t), paddle.full([2], t, dtype="int64"))
    assert np.allclose(found.numpy(), expected, atol=1e-6)


def test_nearest_is_a_root_mean_square_over_pixels():
    flat, x = np.random.default_rng(0).random((2, 5, 4))
    found = functions("diffusion-reverse", flat=flat).nearest(tensor(x))
    assert np.allclose(found, cdist(x, flat).min(axis=1) / 2, atol=1e-6)


@pytest.mark.parametrize(("t", "t_next"), [(3, 1), (1, 3), (2, 0), (0, 1), (2, -1)])
def test_move_keeps_image_and_noise(t, t_next):
    process = a_process("v")
    start, noise = tensor([[[[0.3]]]]), tensor([[[[-1.2]]]])

    def knows_all(x, now):
        return process.target(start, now, noise)

    code = functions("diffusion-reverse", diffusion=process, model=knows_all)
    alpha_bar = np.append(process.alphas_cumprod, 1.0)  # [-1] is the clean image
    at = [float(np.sqrt(a) * 0.3 - np.sqrt(1 - a) * 1.2) for a in alpha_bar[[t, t_next]]]
    assert np.isclose(code.move(tensor([[[[at[0]]]]]), t, t_next).item(), at[1], atol=1e-6)


# Diffusion: the way there


def test_log_snr_is_of_signal_to_noise():
    found = functions("diffusion-forward").log_snr(a_process())[:2]
    assert np.allclose(found, [np.log(9), np.log(0.72 / 0.28)])


def test_log_posterior_differs_from_the_densities_by_one_number_for_each_x():
    rng = np.random.default_rng(0)
    x_t, images, alpha_bar = rng.standard_normal((3, 4)), rng.standard_normal((5, 4)), 0.3
    found = functions("diffusion-forward").log_posterior(x_t, alpha_bar, images)
    expected = np.array(
        [
            [stats.norm.logpdf(x, np.sqrt(0.3) * x_0, np.sqrt(0.7)).sum() for x_0 in images]
            for x in x_t
        ]
    )
    assert np.ptp(found - expected, axis=1).max() < 1e-12


def test_betas_of_gives_the_levels_back():
    levels = np.array([4.0, 1.0, 0.5, -3.0])
    betas = functions("diffusion-forward").betas_of(levels)
    alpha_bar, found = 1.0, []
    for beta in betas:
        alpha_bar *= 1 - beta
        found.append(np.log(alpha_bar / (1 - alpha_bar)))
    assert np.allclose(found, levels)


@pytest.mark.parametrize("level", [-2.0, 0.0, 2.0])
def test_traced_back_is_to_the_nearest_image(level):
    images = np.random.default_rng(0).uniform(-1, 1, (40, 3)) * np.linspace(0.2, 2, 40)[:, None]
    noise = np.random.default_rng(1).standard_normal((30, 3))
    # an image less faint by 1 / signal is nearest to where its noise leads from it
    away = images[:30] + np.exp(-level / 2) * noise
    expected = (cdist(away, images).argmin(axis=1) == np.arange(30)).mean()
    assert functions("diffusion-forward").traced_back(images, level, n=30) == expected


# Score and flow

WEIGHTS = np.array([0.5, 0.3, 0.2])
CENTRES = np.array([[-1.2, -0.6], [1.3, -0.8], [0.3, 1.3]])


def flow(**names):
    """The functions of the chapter, for its mixture or another."""
    mixture = {"weights": WEIGHTS, "centres": CENTRES, "spread": 0.3}
    return functions("score-and-flow", **{**mixture, **names})


def alpha_bar_of(tau):
    return np.exp(-quad(lambda u: 0.1 + 19.9 * u, 0, tau)[0])


def test_score_is_the_gradient_of_the_log_density():
    alpha_bar, h = 0.6, 1e-5

    def log_density(x):
        scale = np.sqrt(0.6 * 0.09 + 0.4)
        parts = stats.norm.pdf(x[:, None], np.sqrt(0.6) * CENTRES, scale).prod(axis=2)
        return np.log(parts @ WEIGHTS)

    x = np.random.default_rng(0).standard_normal((6, 2))
    by_differences = np.stack(
        [(log_density(x + e) - log_density(x - e)) / (2 * h) for e in h * np.eye(2)], axis=1
    )
    assert np.allclose(flow().score(x, alpha_bar), by_differences, atol=1e-8)


def test_draw_mixture_has_the_mixtures_weights_and_spread():
    x = flow(centres=10 * CENTRES).draw_mixture(20_000, np.random.default_rng(0))
    part = cdist(x, 10 * CENTRES).argmin(axis=1)  # the parts do not overlap
    assert np.allclose(np.bincount(part) / len(x), WEIGHTS, atol=0.015)
    assert np.allclose((x - 10 * CENTRES[part]).std(axis=0), 0.3, rtol=0.02)


def test_cosines_of_known_angles():
    arrows, aims = np.array([[2.0, 0.0], [0.0, 3.0]]), np.array([[1.0, np.sqrt(3)], [0.0, -0.5]])
    assert np.allclose(flow().cosines(arrows, aims), [0.5, -1.0])


def test_alpha_bar_is_what_beta_leaves():
    code = flow()
    for tau in (0.0, 0.3, 1.0):
        left = np.exp(-quad(code.beta, 0, tau)[0])
        assert np.isclose(code.alpha_bar(tau), left)
        assert np.isclose(left, alpha_bar_of(tau))


def a_normal_of_the_plane():
    """The chapter's functions for one normal distribution in place of three; how the flow moves
    a point of it, from one tau to another."""
    code = flow(centres=np.array([[0.5, -1.0]] * 3))

    def moved(x, tau, then):
        a, b = alpha_bar_of(tau), alpha_bar_of(then)
        scale = np.sqrt((1 - b + 0.09 * b) / (1 - a + 0.09 * a))
        centre = np.array([0.5, -1.0])
        return np.sqrt(b) * centre + scale * (x - np.sqrt(a) * centre)

    return code, moved


def test_flow_step_keeps_each_point_at_its_quantile():
    code, moved = a_normal_of_the_plane()
    x, tau, h = np.array([[0.8, 0.3], [-1.0, 2.0]]), 0.4, 1e-5
    expected = (moved(x, tau, tau - h) - x) / h
    assert np.allclose((code.flow_step(x, tau, h, None) - x) / h, expected, rtol=1e-3)


def test_reverse_sde_step_keeps_mean_and_variance():
    code, moved = a_normal_of_the_plane()
    tau, h = 0.4, 1e-6
    a, b = alpha_bar_of(tau), alpha_bar_of(tau - h)

    def step(x, noise):
        rng = SimpleNamespace(standard_normal=lambda shape: np.full(shape, noise))
        return code.reverse_sde_step(np.array([x]), tau, h, rng)[0]

    centre = np.sqrt(a) * np.array([0.5, -1.0])
    expected = (np.sqrt(b / a) * centre - centre) / h
    assert np.allclose((step(centre, 0.0) - centre) / h, expected, rtol=1e-3)
    gain = step(centre + 1, 0.0) - step(centre, 0.0)
    noise = step(centre, 1.0) - step(centre, 0.0)
    before, after = (1 - level + 0.09 * level for level in (a, b))
    change = (gain**2 * before + noise**2 - before) / h
    assert np.allclose(change, (after - before) / h, rtol=1e-3)


def test_ddim_step_follows_the_flow_of_a_normal_distribution_of_a_point():
    code = flow(centres=np.array([[0.5, -1.0]] * 3), spread=0.0)
    a, b, noise = alpha_bar_of(0.7), alpha_bar_of(0.5), np.array([[1.5, -0.4]])
    x, then = (np.sqrt(s) * code.centres[:1] + np.sqrt(1 - s) * noise for s in (a, b))
    assert np.allclose(code.ddim_step(x, 0.7, 0.2, None), then)


def test_go_back_takes_even_steps_down_to_zero():
    states = flow().go_back(lambda x, tau, h, rng: x + tau * h, np.zeros((1, 2)), 4)
    assert np.allclose(states[:, 0, 0], np.cumsum([0, 1, 0.75, 0.5, 0.25]) / 4)
    random = [
        flow().go_back(lambda x, tau, h, rng: rng.random(x.shape), np.zeros((1, 2)), 4, seed)
        for seed in (1, 1, 2)
    ]
    assert (random[0] == random[1]).all() and (random[0][1:] != random[2][1:]).all()


def test_first_coordinate_is_the_integral_of_its_density():
    a = alpha_bar_of(0.2)

    def density(x):
        return WEIGHTS @ stats.norm.pdf(x, np.sqrt(a) * CENTRES[:, 0], np.sqrt(a * 0.09 + 1 - a))

    x = np.array([-1.0, 0.1, 0.9])
    expected = [quad(density, -8, end)[0] for end in x]
    assert np.allclose(flow().first_coordinate(0.2)(x), expected, atol=1e-7)


def test_flow_matching_loss_vanishes_for_the_velocity_of_one_point():
    x_0 = tensor([[0.5, -1.0]] * 8)
    code = flow()
    paddle.seed(0)
    assert code.flow_matching_loss(lambda x, tau: (x - x_0) / tau, x_0).item() < 1e-8
    paddle.seed(0)
    # less by 2 in both coordinates
    assert np.isclose(code.flow_matching_loss(lambda x, tau: (x - x_0) / tau - 2, x_0).item(), 4)


def test_flow_matching_draws_a_time_and_noise_for_each_point():
    asked, x_0 = [], tensor([[0.5, -1.0]] * 1000)
    paddle.seed(0)
    flow().flow_matching_loss(lambda x, tau: asked.append((x, tau)) or 0 * x, x_0)
    [(x, tau)] = asked
    assert tau.shape == [1000, 1] and stats.kstest(tau.numpy().ravel(), "uniform").pvalue > 1e-3
    noise = ((x - (1 - tau) * x_0) / tau)[tau.squeeze() > 0.1]
    assert stats.kstest(noise.numpy().ravel(), "norm").pvalue > 1e-3


def test_follow_velocity_ends_at_the_only_point():
    def velocity(x, level):
        return (x - tensor([[0.5, -1.0]])) / level

    found = flow(velocity=velocity).follow_velocity(tensor([[2.0, 1.0]]), 5)
    assert np.allclose(found, [[0.5, -1.0]], atol=1e-6)


@pytest.mark.parametrize("noisy", [False, True])
def test_follow_velocity_ends_in_the_distribution_of_the_data(noisy):
    centre = tensor([0.5, -1.0])

    def velocity(x, level):  # the mean of noise less data, where the data are N(centre, 0.6^2)
        weight = 1 - level
        away = (x - weight * centre) / (weight**2 * 0.36 + level**2)
        return level * away - (centre + weight * 0.36 * away)

    paddle.seed(0)
    found = flow(velocity=velocity).follow_velocity(paddle.randn([20_000, 2]), 100, noisy)
    assert np.allclose(found.mean(axis=0), [0.5, -1.0], atol=0.02)
    assert np.allclose(found.std(axis=0), 0.6, atol=0.02)


def test_straight_path_asks_the_network_for_states_that_it_knows():
    beta = functions("score-and-flow").cosine_beta_schedule(1000)
    process, asked = GaussianDiffusion(beta, prediction="v"), []

    def unet(x, t, labels):
        signal, level = (
            float(root[t.item()])
            for root in (process.sqrt_alphas_cumprod, process.sqrt_one_minus_alphas_cumprod)
        )
        asked.append((signal, level, x.numpy()))
        return (signal * x - 0.4) / level  # of an image that is 0.4 all over

    code = flow(
        diffusion=process,
        unet=unet,
        digits=SimpleNamespace(images=np.zeros((1, 1, 2, 2))),
        ratio=np.sqrt(1 / process.alphas_cumprod - 1),
    )
    paddle.seed(0)
    noise = paddle.randn([1, 1, 2, 2]).numpy()
    paddle.seed(0)
    assert np.allclose(code.straight_path([3], steps=10).numpy(), 0.7, atol=1e-5)
    assert len(asked) == 10
    for signal, level, x in asked:
        assert np.allclose(x, signal * 0.4 + level * noise, atol=0.01)
    # data and noise weigh the same halfway
    assert np.allclose(asked[5][:2], np.sqrt(0.5), atol=0.01)


# Solvers

TOY = {"weights": np.array([0.6, 0.4]), "centres": np.array([-1.0, 1.0]), "spread": 0.3}


def solvers(**names):
    """The functions of the chapter, for its mixture."""
    return functions("solvers", **{**TOY, "at_end": None, "n": 3, "diffusion": None, **names})


def toy_density(x):
    return stats.norm.pdf(np.asarray(x)[..., None], TOY["centres"], TOY["spread"]) @ TOY["weights"]


def test_toy_denoiser_is_the_mean_of_the_clean_number():
    x, x_0 = np.array([-3.0, -0.2, 0.5, 40.0]), np.linspace(-6, 6, 24_001)
    for sigma in (0.05, 0.7, 30.0):
        weight = toy_density(x_0) * np.exp(-((x[:, None] - x_0) ** 2) / (2 * sigma**2))
        usable = weight.sum(axis=1) > 0
        expected = (weight[usable] * x_0).sum(axis=1) / weight[usable].sum(axis=1)
        assert np.allclose(solvers().toy_denoiser(x, sigma)[usable], expected, atol=1e-6)


def test_toy_quantiles_are_those_of_noisy_draws():
    rng, shares = np.random.default_rng(0), np.array([0.1, 0.5, 0.9])
    x = rng.choice(TOY["centres"], 200_000, p=TOY["weights"])
    x = x + np.hypot(0.3, 2.0) * rng.standard_normal(x.shape)
    assert np.allclose(solvers().toy_quantiles(shares, 2.0), np.quantile(x, shares), atol=0.03)


def test_toy_error_counts_evaluations():
    asked = []

    def denoise(x, sigma):
        asked.append(sigma)
        return 0 * x

    code = solvers(at_start=np.array([80.0, -80.0]), at_end=np.zeros(2))
    for solver in (code.euler, code.heun, code.dpm_solver_2m):
        asked.clear()
        # without an image x is in proportion to sigma
        assert np.isclose(code.toy_error(solver, 8, denoise, np.array([0.03, -0.03])), 0.02)
        assert len(asked) == 8


def test_multiples_are_those_of_heuns_step_and_of_the_exact_one():
    code, h = solvers(), 1.3
    x, sigma, then = np.array([0.4]), np.exp(h), 1.0
    first, second = np.array([0.2]), np.array([0.9])

    def denoise(x, level):
        return first if level == sigma else second

    change = code.heun(denoise, x, [sigma, then]) - code.euler(denoise, x, [sigma, then])
    exact = quad(lambda u: np.exp(u - h) * u / h, 0, h)[0]
    assert np.allclose(code.multiples(h), [change[0] / 0.7, exact])


def test_grids_go_from_the_highest_level_to_0_on_trained_levels():
    process = GaussianDiffusion(np.full(200, 0.05))
    levels = np.sqrt(1 / process.alphas_cumprod - 1)
    code = solvers(levels=levels, highest=levels[150], lowest=levels[0], top=150)
    for grid in (code.even_in_log(8), code.even_in_t(8), code.even_in_root(8)):
        assert np.isclose(grid[0], levels[150]) and np.isclose(grid[-2], levels[0])
        assert grid[-1] == 0 and (np.diff(grid) < 0).all()
        assert np.isin(grid[:-1], levels).all()
    steps = np.searchsorted(levels, code.even_in_t(8)[:-1])
    assert np.ptp(np.diff(steps)) <= 1
    assert np.ptp(np.diff(np.log(code.even_in_log(6)[:4]))) < 0.2


def test_solver_samples_start_at_the_noise_and_know_their_labels():
    process, asked = a_process(), []

    def network(x_t, t, labels):
        asked.append(labels.tolist())
        return paddle.zeros_like(x_t)  # no noise: the image is x itself

    noise = tensor([[0.1], [0.2], [-0.3]])
    code = solvers(
        unet=network, asked=np.array([2, 0, 1]), noise=noise, highest=2.0, n=3, diffusion=process
    )
    found = code.sample(code.euler, [process_level(process), 0.0], 2, process)
    assert np.allclose(found.numpy(), [[0.2], [0.4]], atol=1e-6)
    assert asked == [[2, 0]]


def process_level(process):
    return np.sqrt(1 / process.alphas_cumprod[-1] - 1)


def test_apart_and_extra_distance_are_differences():
    code = solvers(features={"mine": np.ones((4, 2)), "reference": np.zeros((4, 2))})
    code = solvers(features=code.features, real=np.zeros((3, 2)))
    assert np.isclose(code.extra_distance(np.arange(4), "mine"), 2.0)
    assert np.isclose(code.apart(tensor([[3.0, 0.0]]), tensor([[0.0, 4.0]])), np.sqrt(12.5))
    assert np.allclose(code.as_images(tensor([-3.0, 0.0, 1.0])), [0, 0.5, 1])


def test_two_stages_are_heun_and_midpoint():
    code, grid = solvers(), np.array([3.0, 2.0, 0.5])

    def denoise(x, sigma):
        return np.sin(x) / sigma

    x = np.array([0.7, -1.2])
    assert np.allclose(code.two_stages(denoise, x, grid, 1.0), code.heun(denoise, x, grid))
    midpoint = x
    for now, then in zip(grid[:-1], grid[1:], strict=True):
        half = midpoint + (then - now) / 2 * (midpoint - denoise(midpoint, now)) / now
        level = (now + then) / 2
        midpoint = midpoint + (then - now) * (half - denoise(half, level)) / level
    assert np.allclose(code.two_stages(denoise, x, grid, 0.5), midpoint)


def test_mended_heun_integrates_the_mean_estimate_exactly():
    code = solvers()
    estimates = {2.0: 0.3, 1.0: 0.7}
    found = code.mended_heun(lambda x, s: estimates[s], 1.4, [2.0, 1.0])
    assert np.isclose(found, 0.5 + (1.4 - 0.5) / 2)
    assert np.isclose(code.mended_heun(lambda x, s: estimates[s], 1.4, [2.0, 0.0]), 0.3)


def test_churned_keeps_the_density_and_without_noise_is_euler():
    code, rng = solvers(), np.random.default_rng(0)
    x = 30 * rng.standard_normal(20_000)
    grid = np.geomspace(30.0, 0.02, 101)
    still = code.churned(x, grid, 0.0, rng)
    assert np.allclose(still, code.euler(code.toy_denoiser, x, grid))
    fresh = code.churned(x, grid, 0.1, rng)
    assert abs(np.corrcoef(fresh, x)[0, 1]) < 0.5 < np.corrcoef(still, x)[0, 1]
    assert np.isclose((fresh < 0).mean(), 0.6, atol=0.03)
    assert np.isclose(fresh.std(), np.sqrt(0.09 + 0.96), rtol=0.03)


def test_known_is_the_distribution_function():
    expected = [quad(toy_density, -4, x)[0] for x in (-0.9, 0.4)]
    assert np.allclose(solvers().known(np.array([-0.9, 0.4])), expected, atol=1e-3)


def test_clipped_toy_stays_in_range():
    x = np.array([-30.0, 0.1, 30.0])
    code = solvers()
    found = code.clipped_toy(x, 0.5)
    assert found[0] == -1 and found[2] == 1 and found[1] == code.toy_denoiser(x, 0.5)[1]


# Flow matching

CLUSTERS = {
    "weights": np.array([0.7, 0.3]),
    "centres": np.array([[-1.0, 0.5], [1.0, 0.0]]),
    "spread": 0.4,
}


def flow_matching(**names):
    """The functions of the chapter, for another mixture."""
    names = {"digits": None, "n": 2, "diffusion": None, "everyone": None, **CLUSTERS, **names}
    return functions("flow-matching", **names)


def test_grids_of_the_flow_are_even_in_time_or_in_angle():
    code = flow_matching()
    assert np.allclose(code.even_in_time(4), [1, 0.75, 0.5, 0.25, 0])
    times = code.even_in_angle(4)
    assert np.allclose(np.arctan2(times, 1 - times), np.linspace(np.pi / 2, 0, 5))


def test_mixture_velocity_is_the_mean_direction():
    """Regression on draws: at states of two clusters the direction less the velocity is noise."""
    code, rng, n = flow_matching(), np.random.default_rng(0), 200_000
    part = rng.choice(2, n, p=CLUSTERS["weights"])
    x_0 = CLUSTERS["centres"][part] + 0.4 * rng.standard_normal((n, 2))
    noise = rng.standard_normal((n, 2))
    for tau in (0.3, 0.8):
        x = (1 - tau) * x_0 + tau * noise
        rest = noise - x_0 - code.mixture_velocity(x, tau)
        for factor in (1, x[:, :1], x[:, 1:], np.tanh(3 * x[:, :1])):
            mean, error = code.mean_and_error(rest[:, 0] * np.ravel(factor))
            assert abs(mean) < 4 * error
            mean, error = code.mean_and_error(rest[:, 1] * np.ravel(factor))
            assert abs(mean) < 4 * error


def test_paths_of_the_mixture_end_in_its_density():
    code = flow_matching()
    z = np.random.default_rng(1).standard_normal((4000, 2))
    states = code.path(code.mixture_velocity, z, 40)
    assert states.shape == (41, 4000, 2) and (states[0] == z).all()
    assert abs((states[-1][:, 0] < 0).mean() - 0.7) < 0.03
    assert abs(code.off_centre(states[-1]).mean() / 2 - 0.16) < 0.02
    assert np.allclose(code.off_centre(np.array([[1.0, 2.0], [-1.0, 0.5]])), [4, 0])


def test_log_density_of_the_mixture_is_found_along_the_flow():
    code = flow_matching()
    x = np.array([[0.2, -0.3], [-1.1, 0.4]])
    parts = [
        w * stats.multivariate_normal.pdf(x, m, 0.16)
        for w, m in zip(CLUSTERS["weights"], CLUSTERS["centres"])
    ]
    assert np.allclose(code.mixture_log_density(x), np.log(sum(parts)))
    assert np.allclose(code.along(x), np.log(sum(parts)), atol=2e-3)


# Guidance


def guidance(**names):
    names = {"n": 1, "diffusion": None, **names}
    return functions("guidance", **names)


def a_half(x, centre):
    return stats.norm.pdf(x, centre, 0.5)


@pytest.mark.parametrize("t", [0, 3])
def test_toy_network_is_the_mean_noise(t):
    process = a_process()
    a, network = process.alphas_cumprod[t], guidance(toy=process).toy_network
    x_t, steps = tensor([[0.4], [-0.9]]), paddle.full([2], t, dtype="int64")
    both = [mean_noise(x, a, lambda u: a_half(u, 1) + a_half(u, -1)) for x in (0.4, -0.9)]
    assert np.allclose(network(x_t, steps).numpy().ravel(), both, atol=1e-5)
    one = [mean_noise(x, a, lambda u, y=y: a_half(u, y)) for x, y in ((0.4, 1), (-0.9, -1))]
    found = network(x_t, steps, tensor([[1.0], [-1.0]]))
    assert np.allclose(found.numpy().ravel(), one, atol=1e-5)


def test_class_density_is_the_clean_one_after_noise():
    for y in (1, -1):
        expected = quad(
            lambda u, y=y: a_half(u, y) * stats.norm.pdf(0.3, np.sqrt(0.6) * u, np.sqrt(0.4)), -8, 8
        )[0]
        assert np.isclose(guidance().class_density(0.3, y, 0.6), expected)


@pytest.mark.parametrize("scale", [0, 2.5])
def test_sharpened_multiplies_by_a_power_of_the_posterior(scale):
    def unscaled(x):
        # for two classes of one variance the posterior is a logistic function
        return a_half(x, 1) * special.expit(8 * x) ** scale

    grid = np.linspace(-6, 6, 2401)
    found = guidance(grid=grid, step=grid[1] - grid[0]).sharpened(scale)
    assert np.allclose(found, unscaled(grid) / quad(unscaled, -6, 6)[0], atol=1e-8)


def test_moments_of_a_normal_density():
    grid = np.linspace(-6, 6, 2401)
    found = guidance(grid=grid, step=grid[1] - grid[0]).moments(stats.norm.pdf(grid, 0.7, 0.4))
    assert np.allclose(found, [0.7, 0.4])


def test_spread_is_over_all_pairs_of_a_class():
    vectors, labels = np.random.default_rng(0).standard_normal((9, 3)), np.arange(9) % 2
    expected = []
    for k in (0, 1):
        square = cdist(vectors[labels == k], vectors[labels == k]) ** 2
        expected.append(square[~np.eye(len(square), dtype=bool)].mean())
    assert np.isclose(guidance().spread(vectors, labels), np.sqrt(np.mean(expected)))


def test_follow_unguided_keeps_each_point_at_its_quantile():
    process = functions("guidance", n=1, diffusion=None).cosine_beta_schedule(1000)
    toy = GaussianDiffusion(process, clip=100.0)
    a, quantiles = toy.alphas_cumprod[-1], np.array([-1.5, 0.0, 1.0])
    start = np.sqrt(a) + np.sqrt(1 - 0.75 * a) * quantiles
    found = guidance(toy=toy).follow(tensor(start[:, None]), 0)
    assert np.allclose(found, 1 + 0.5 * quantiles, atol=0.02)


def test_follow_draws_noise_where_eta_is_1():
    schedule = functions("guidance", n=1, diffusion=None).cosine_beta_schedule(1000)
    follow = guidance(toy=GaussianDiffusion(schedule, clip=100.0)).follow
    same = paddle.full([500, 1], 1.3)
    assert follow(same, 0).std() < 1e-5
    paddle.seed(0)
    drawn = follow(same, 0, eta=1.0)  # of N(1, 0.25), wherever it starts
    assert abs(drawn.mean() - 1) < 5 * 0.5 / np.sqrt(500)
    assert abs(drawn.std() - 0.5) < 5 * 0.5 / np.sqrt(1000)


def test_guided_in_between_is_so_only_in_between():
    process = GaussianDiffusion([0.05, 0.5, 0.95])  # leaves 0.95, 0.475 and 0.02375

    def network(x, t, labels=None):
        return 0 * x + (1.0 if labels is None else 3.0)

    model = guidance().guided_in_between(network, [0], 2.0, process)
    x = tensor([[0.0]])
    assert [model(x, paddle.to_tensor([t])).item() for t in range(3)] == [3.0, 7.0, 3.0]


def test_classifier_guided_adds_the_gradient_of_the_log_probability_to_the_score():
    process = a_process("v")
    weight = np.random.default_rng(0).standard_normal((3, 3))  # two pixels and the level

    def reader(x):
        return x @ tensor(weight)

    x = np.random.default_rng(1).standard_normal((2, 2))
    x_t, y, t = tensor(x).reshape([2, 1, 1, 2]), paddle.to_tensor([2, 0]), 2
    code = guidance(diffusion=process, reader=reader, unet=lambda x, t: 0.3 * x)
    steps = paddle.full([2], t, dtype="int64")

    def score(model):
        start = process.predict_start(model, x_t, steps)
        noise = process.predict_noise_from_start(x_t, steps, start).numpy().reshape(2, 2)
        return -noise / process.sqrt_one_minus_alphas_cumprod[t]

    level = np.full((2, 1), process.sqrt_alphas_cumprod[t])
    p = special.softmax(np.hstack([x, level]) @ weight, axis=1)
    gradient = (np.eye(3)[[2, 0]] - p) @ weight[:2].T
    added = score(code.classifier_guided(y, 1.7)) - score(code.unet)
    assert np.allclose(added, 1.7 * gradient, atol=1e-5)


# One step


def one_step(**names):
    mixture = {"weights": np.array([0.6, 0.4]), "centres": np.array([-1.0, 1.0]), "spread": 0.5}
    table = np.linspace(-5, 5, 10_001)
    names = {"teacher": None, "top": 80.0, "table": table, "n": 4, **mixture, **names}
    code = functions("one-step", **names)
    code.variety.__globals__.update(names)  # in the place of what the page imports
    return code


def noisy_draws(sigma, n=200_000):
    rng = np.random.default_rng(0)
    x_0 = rng.choice([-1.0, 1.0], n, p=[0.6, 0.4]) + 0.5 * rng.standard_normal(n)
    noise = rng.standard_normal(n)
    return x_0, noise, x_0 + sigma * noise


def test_toy_denoiser_and_share_are_those_of_draws():
    x_0, _, x = noisy_draws(0.7)
    near = np.abs(x - 0.3) < 0.05
    code = one_step()
    assert abs(code.toy_denoiser(np.array([0.3]), 0.7)[0] - x_0[near].mean()) < 0.03
    assert abs(code.share(np.array([0.3]), 0.7)[0] - (x < 0.3).mean()) < 0.005


def test_flow_map_keeps_each_quantile():
    x_0, _, x = noisy_draws(2.0)
    quantiles = [0.1, 0.5, 0.8]
    code = one_step()
    found = code.flow_map(np.quantile(x, quantiles), 2.0)
    assert np.allclose(found, np.quantile(x_0, quantiles), atol=0.03)
    at = np.array([-3.0, 0.4])
    assert np.allclose(code.flow_map(code.flow_map(at, 2.0, 0.5), 0.5), code.flow_map(at, 2.0))
    assert np.allclose(code.flow_map(at / 10, 0.0), at / 10, atol=1e-6)


def test_toy_levels_have_even_angles():
    found = one_step(top=3.0).toy_levels(4)
    assert np.allclose(np.diff(np.arctan(found)), -np.arctan(3.0) / 4)
    assert found[0] == pytest.approx(3.0) and found[-1] == 0


def test_joined_leaves_a_gap_behind_each_path():
    found = one_step().joined([[1.0, 4.0], [2.0, 5.0]])
    assert np.array_equal(found, [1, 2, np.nan, 4, 5, np.nan], equal_nan=True)


def test_trained_map_is_the_mean_of_the_neighbour_s_ends():
    """Two levels by hand: the denoiser, and its mean over draws with less of the same noise."""
    starts = np.array([-0.9, 0.2, 1.4])
    nodes, node_weights = np.polynomial.hermite_e.hermegauss(15)
    node_weights = node_weights / node_weights.sum()
    code = one_step(starts=starts, top=2.0, nodes=nodes, node_weights=node_weights)
    assert np.allclose(code.trained_map([2.0, 0.0]), code.toy_denoiser(starts, 2.0), atol=1e-6)
    x_0, noise, x = noisy_draws(2.0, 1_000_000)
    ends = code.toy_denoiser(x_0 + 0.8 * noise, 0.8)
    expected = [ends[np.abs(x - start) < 0.05].mean() for start in starts]
    assert np.allclose(code.trained_map([2.0, 0.8, 0.0]), expected, atol=0.02)


def test_variety_is_the_distance_of_pairs_of_a_class():
    images = np.random.default_rng(0).random((7, 1, 2, 2))
    y = np.array([0, 1, 0, 1, 1, 0, 0])
    squares = []
    for k in (0, 1):
        group = images[y == k].reshape(-1, 4)
        squares.append(np.mean(cdist(group, group)[np.triu_indices(len(group), 1)] ** 2))
    assert np.isclose(one_step().variety(images, y), np.sqrt(np.mean(squares)))


def test_gain_is_paired():
    read = {"a": np.array([1.0, 1, 0, 1]), "b": np.array([0.0, 1, 0, 1])}
    mean, error = one_step(read=read).gain("a", "b")
    assert mean == 0.25 and error == pytest.approx(np.std([1, 0, 0, 0]) / 2)


class Record:
    """Stands for `fit` or a sampler, and keeps what it is called with."""

    def __call__(self, *args, **kwargs):
        self.args, self.kwargs = args, kwargs
        return args[2] if len(args) > 2 else None


def test_distil_trains_a_copy_from_the_weights_of_its_start():
    from genbook.latent import CodeDenoiser

    start, fit = CodeDenoiser(3, classes=2), Record()
    vae = SimpleNamespace(latent_dim=3)
    code = one_step(teacher=start, vae=vae, classes=2, fit=fit)
    student = code.distil("loss", ("x", "y"), steps=7)
    assert student is not start and fit.args == (student, "loss", "x", "y")
    assert fit.kwargs["steps"] == 7 and fit.kwargs["ema"] == 0.995
    for key, value in start.state_dict().items():
        assert np.array_equal(student.state_dict()[key].numpy(), value.numpy())
        assert student.state_dict()[key] is not value


def test_pairs_are_of_the_labelled_teacher():
    ddim = Record()
    network = lambda x, t, y=None: x if y is None else 2 * x + y.astype(x.dtype).reshape([-1, 1])
    vae = SimpleNamespace(latent_dim=3)
    code = one_step(
        teacher=network, vae=vae, classes=5, ddim=ddim, process="process", times="times"
    )
    x_T, sample, y = code.pairs(eta=0.5, guidance=1.0, count=50)
    process, model, noise, times, eta = ddim.args
    assert (process, times, eta) == ("process", "times", 0.5)
    assert x_T.shape == (50, 3) and set(y.tolist()) == set(range(5))
    assert np.array_equal(noise.numpy(), x_T) and np.array_equal(sample, x_T)
    told = 2 * x_T + y[:, np.newaxis]
    assert np.allclose(model(noise, None).numpy(), told + (told - x_T), atol=1e-5)


def test_pair_loss_is_that_of_the_first_step():
    seen = []

    def network(x, t, y):
        seen.append(t.numpy())
        return x * y.astype("float32").reshape([-1, 1])

    process = a_process("v")
    code = one_step(process=process)
    x_T, sample = tensor([[1.0, 2.0], [0.5, -1.0]]), tensor([[0.2, 0.0], [1.0, 1.0]])
    y = paddle.to_tensor([1, 3])
    a = process.alphas_cumprod[-1]
    v = (np.sqrt(a) * x_T.numpy() - sample.numpy()) / np.sqrt(1 - a)
    expected = np.mean((x_T.numpy() * [[1], [3]] - v) ** 2)
    assert np.isclose(code.pair_loss(network, x_T, sample, y).item(), expected, rtol=1e-4)
    assert (np.array(seen) == 3).all()


@pytest.mark.parametrize("taught", [True, False])
def test_consistent_gives_the_teacher_or_none(taught):
    loss = Record()
    network = lambda factor: lambda x, t, y: factor * x + y.astype("float32").reshape([-1, 1])
    code = one_step(
        teacher=network(5), consistency_loss=loss, times="times", process="process",
        reparameterize=lambda mu, logvar: mu + logvar,
        scale=SimpleNamespace(to_unit=lambda z: 10 * z),
    )  # fmt: skip
    mu, logvar, y = tensor([[1.0], [2.0]]), tensor([[3.0], [4.0]]), paddle.to_tensor([1, 2])
    (code.consistent if taught else code.untaught)(network(7), mu, logvar, y)
    process, model, u, times, teacher = loss.args
    assert (process, times) == ("process", "times")
    assert u.numpy().tolist() == [[40.0], [60.0]]
    assert model(u, None).numpy().tolist() == [[281.0], [422.0]]
    if taught:
        assert teacher(u, None).numpy().tolist() == [[201.0], [302.0]]
    else:
        assert teacher is None


# Filling in


def filling_in(**names):
    names = {"unet": None, "n": 2, "m": 3, "shape": (1, 4, 4), "side": 4, "pixels": 16, **names}
    return functions("filling-in", **names)


def toy_process():
    return GaussianDiffusion(filling_in().cosine_beta_schedule(1000), "v", clip=100.0)


def test_r2_is_the_variance_left_by_a_noisy_pixel():
    precision = 1 / 0.3 + 0.8 / 0.2
    assert np.isclose(filling_in(s2=0.3).r2(0.8), 1 / precision)


def test_guide_leads_each_row_to_its_own_measurement():
    process = toy_process()

    def network(x, t):  # of independent pixels with the variance s2
        level = float(process.alphas_cumprod[int(t[0])])
        start = 0.5 * level**0.5 / (0.5 * level + 1 - level)
        return (level**0.5 - start) / (1 - level) ** 0.5 * x

    code = filling_in(diffusion=process, noise=0.01, s2=0.5)
    y = np.random.default_rng(0).uniform(-1, 1, (200, 16))
    found = code.guide(np.eye(16), y, network)
    assert found.shape == (200, 16)
    assert np.abs(found - y).max() < 0.06
    free = code.guide(np.eye(16)[:1], y[:, :1], network)[:, 1:]
    assert np.isclose(free.var(), 0.5, rtol=0.3)  # twenty steps lose a part of it


def test_pictures_are_the_images_from_0_to_1():
    found = filling_in().pictures(np.linspace(-3, 1, 32).reshape(2, 16))
    assert found.shape == (2, 1, 4, 4)
    assert np.allclose(found.ravel(), np.linspace(-1, 1, 32).clip(0))


def test_put_in_asks_for_m_completions_of_each_image():
    images = paddle.arange(6).astype("float32").reshape([6, 1, 1, 1]).expand([6, 1, 4, 4])
    window = paddle.ones([1, 4, 4])
    code = filling_in(diffusion=a_process("v"), unet=lambda x, t: x, images=images, window=window)
    assert np.allclose(code.put_in(2, 1)[:, :, 0], [[0, 1, 2], [3, 4, 5]])


def test_at_border_multiplies_what_meets_there():
    training = np.ones((5, 16))
    x = np.arange(32.0).reshape(2, 16)
    products, squares = filling_in(training=training).at_border(x)
    assert np.allclose(
        products,
        [
            np.mean([(3 + k) * (7 + k) for k in range(4)]),
            np.mean([(19 + k) * (23 + k) for k in range(4)]),
        ],
    )
    assert np.allclose(squares, [np.mean([(b + k) ** 2 for k in range(4)]) for b in (3, 19)])


def test_lost_is_a_share_of_sums():
    assert np.isclose(filling_in().lost(np.array([[1.0, 2, 9], [2, 4, 9]])), 0.5)


@pytest.mark.parametrize("repeats", [1, 3])
def test_slope_is_that_of_the_joint_normal_distribution(repeats):
    steps, rho = 6, 0.8
    code = filling_in(rho=rho)
    betas = code.cosine_beta_schedule(steps)
    levels = np.append(1.0, np.cumprod(1 - betas))
    clean, mean = np.array([[1, rho], [rho, 1]]), np.zeros(2)
    for t in range(steps, 0, -1):
        alpha = 1 - betas[t - 1]
        now, later = (level * clean + (1 - level) * np.eye(2) for level in levels[[t - 1, t]])
        for repeat in range(repeats):
            mean = np.sqrt(alpha) * mean if repeat else mean
            mean[0] = np.sqrt(levels[t])
            mean = np.sqrt(alpha) * now @ np.linalg.solve(later, mean)
    assert np.isclose(code.slope(steps, repeats), mean[1])


def test_the_two_pixels_of_filling_in_are_exact():
    toy, rho = toy_process(), 0.8
    code = filling_in(toy=toy, rho=rho)
    clean, x = np.array([[1, rho], [rho, 1]]), np.array([[0.7, -1.2]])
    for step in (100, 500, 900):
        level = toy.alphas_cumprod[step]
        noisy = level * clean + (1 - level) * np.eye(2)
        gain = np.sqrt(level) * clean @ np.linalg.inv(noisy)
        start = toy.predict_start(code.toy_network, tensor(x), paddle.to_tensor([step]))
        assert np.allclose(start.numpy(), x @ gain.T, atol=1e-4)
        left = clean - np.sqrt(level) * gain @ clean
        assert np.isclose(code.toy_variance(level), left[0, 0])


def test_toy_samples_are_those_of_the_posterior():
    code = filling_in(toy=toy_process(), rho=0.8, seen=-1.0, blur=0.5)
    x = code.toy_samples(code.toy_variance, 2000)
    assert np.isclose(x.mean(), -0.8 / 1.25, atol=0.06)
    assert np.isclose(x.std(), np.sqrt(1 - 0.64 / 1.25), atol=0.05)


def test_normal_draws_are_those_of_the_posterior():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((3, 3))
    mean, covariance = rng.standard_normal(3), root @ root.T
    A, y = np.array([[1.0, 0.5, 0.0]]), np.full((20_000, 1), 1.3)
    code = filling_in(pixels=3, noise=0.4, mean=mean, covariance=covariance)
    x = code.normal_draws(A, y, rng)
    precision = np.linalg.inv(covariance) + A.T @ A / 0.16
    expected = np.linalg.solve(precision, np.linalg.solve(covariance, mean) + A[0] * 1.3 / 0.16)
    assert np.allclose(x.mean(axis=0), expected, atol=0.06)
    assert np.allclose(np.cov(x.T), np.linalg.inv(precision), rtol=0.05, atol=0.05)


def test_gap_is_that_of_pairs():
    table = {"a": {"key": np.array([1.0, 5.0])}, "b": {"key": np.array([2.0, 9.0])}}
    assert np.allclose(filling_in(table=table).gap("key", "a", "b"), [2.5, 1.5])


# Divergence


def divergence(**names):
    """The functions of the chapter, on its kind of grid."""
    x = np.linspace(-15, 15, 3001)
    return functions("divergence", **{"x": x, "dx": x[1] - x[0], **names})


def test_log_normal_takes_the_deviation():
    expected = np.log(np.exp(-((1 / 3) ** 2) / 2) / np.sqrt(2 * np.pi * 9))
    assert np.isclose(divergence().log_normal(1.0, 2.0, 3.0), expected)


def test_kl_of_probabilities_is_relative_entropy():
    p, q = np.random.default_rng(0).dirichlet(np.ones(5), 2)
    assert np.isclose(divergence().kl_of_probabilities(p, q), stats.entropy(p, q))


def test_kl_on_the_grid_is_the_integral():
    code, p, q = divergence(), stats.norm(1, 0.5), stats.norm(-0.3, 2)
    assert np.isclose(code.kl(p.logpdf(code.x), q.logpdf(code.x)), kl_by_quadrature(p, q))


@pytest.mark.parametrize("start", [-4.0, 4.0])
def test_seek_finds_the_bump_next_to_its_start(start):
    x = divergence().x
    log_p = np.logaddexp(stats.norm.logpdf(x, -5, 0.7), stats.norm.logpdf(x, 5, 0.4)) - np.log(2)
    expected = (-5, 0.7) if start < 0 else (5, 0.4)
    assert np.allclose(divergence(log_p=log_p).seek(start), expected, atol=1e-3)


def test_search_finds_one_of_two_bumps_or_the_only_one():
    search = divergence().search
    # where the bumps are apart, half of p is missed: the divergence is log 2
    assert np.allclose(search(5.0, -4.5), [5, np.log(2)], atol=1e-3)
    assert np.allclose(search(0.0, 0.5), [0, 0], atol=1e-3)


def test_kl_normal_is_the_integral():
    kl_normal = divergence().kl_normal
    expected = kl_by_quadrature(stats.norm(1, 0.5), stats.norm(-0.3, 2))
    assert np.isclose(kl_normal(1, 0.5, -0.3, 2), expected)
    expected = kl_by_quadrature(stats.norm(1, 0.5), stats.norm())
    assert np.isclose(kl_normal(1, 0.5), expected)


def test_gaussian_kl_adds_the_integrals_of_a_row():
    mu, logvar = np.random.default_rng(0).standard_normal((2, 2, 3))
    expected = [
        sum(
            kl_by_quadrature(stats.norm(m, np.exp(v / 2)), stats.norm())
            for m, v in zip(*row, strict=True)
        )
        for row in zip(mu, logvar, strict=True)
    ]
    assert np.allclose(divergence().gaussian_kl(mu, logvar), expected)


def test_kl_normal_general_is_the_integral_over_the_plane():
    mu_1, cov_1 = np.array([0.5, -0.4]), np.array([[0.5, 0.2], [0.2, 0.3]])
    mu_2, cov_2 = np.array([-0.3, 0.6]), np.array([[1.5, -0.7], [-0.7, 1.0]])
    axis = np.linspace(-7, 7, 281)
    at = np.stack(np.meshgrid(axis, axis), axis=-1)
    log_p, log_q = (
        stats.multivariate_normal(mu, cov).logpdf(at) for mu, cov in ((mu_1, cov_1), (mu_2, cov_2))
    )
    expected = (np.exp(log_p) * (log_p - log_q)).sum() * 0.05**2
    assert np.isclose(divergence().kl_normal_general(mu_1, cov_1, mu_2, cov_2), expected)


# Variational autoencoders and their likelihood


def test_elbo_of_the_linear_model_is_the_integral():
    a, b, s, x, m, d = 1.5, 0.2, 0.8, 1.7, 0.3, 0.6

    def integrand(z):
        log_joint = stats.norm.logpdf(z) + stats.norm.logpdf(x, a * z + b, s)
        return stats.norm.pdf(z, m, d) * (log_joint - stats.norm.logpdf(z, m, d))

    elbo = functions("vae", a=a, b=b, s=s).elbo
    assert np.isclose(elbo(x, m, d), quad(integrand, -8, 8)[0])


def test_elbo_of_the_linear_model_is_the_evidence_at_the_posterior():
    a, b, s, x = 1.5, 0.2, 0.8, 1.7
    mean, variance = a * (x - b) / (a**2 + s**2), s**2 / (a**2 + s**2)
    elbo = functions("vae", a=a, b=b, s=s).elbo
    expected = stats.norm.logpdf(x, b, np.hypot(a, s))
    assert np.isclose(elbo(x, mean, np.sqrt(variance)), expected)


def test_bound_is_a_mean_over_the_noise():
    mu, deviation = np.array([[0.3], [-0.8]]), np.array([[0.5], [0.9]])
    x, epsilon = np.array([[1.0, 0.0], [1.0, 1.0]]), np.array([0.4, -1.1, 2.0])

    def decode(z):  # two pixels, of which the second is the negative of the first
        p = paddle.nn.functional.sigmoid(z)
        return paddle.concat([p, 1 - p], axis=1).reshape([-1, 1, 1, 2])

    expected = []
    for i in range(2):
        p = special.expit(mu[i] + deviation[i] * epsilon)
        log_p = stats.bernoulli.logpmf(x[i][:, None], np.stack([p, 1 - p])).sum(axis=0)
        divergence = kl_by_quadrature(stats.norm(mu[i, 0], deviation[i, 0]), stats.norm())
        expected.append(log_p.mean() - divergence)
    code = functions("vae", models={1.0: SimpleNamespace(decode=decode)})
    found = code.bound(
        tensor(mu),
        tensor(2 * np.log(deviation)),
        tensor(x).reshape([2, 1, 1, 2]),
        [tensor([[e], [e]]) for e in epsilon],
    )
    assert np.allclose(found.numpy(), expected, atol=1e-5)


def test_search_finds_the_best_guess_for_each_image():
    def decode(z):
        p = paddle.nn.functional.sigmoid(2 * z)
        return paddle.concat([p, 1 - p], axis=1).reshape([-1, 1, 1, 2])

    guess = tensor([[0.5], [-0.3]]), tensor([[-0.4], [-0.6]])
    network = SimpleNamespace(decode=decode, encode=lambda x: guess)
    before, after = functions("vae", models={1.0: network}).search(
        tensor([[[[1.0, 0.0]]], [[[1.0, 1.0]]]])
    )
    paddle.seed(1)
    noise = paddle.randn([64, 2, 1]).numpy()[..., 0]

    def bound(i, guess):
        z = 2 * (guess[0] + np.exp(guess[1] / 2) * noise[:, i])
        log_p = special.log_expit(z) + special.log_expit(-z if i else z)
        return log_p.mean() - 0.5 * (np.exp(guess[1]) + guess[0] ** 2 - 1 - guess[1])

    for i in range(2):
        given = [part[i, 0].item() for part in guess]
        assert np.isclose(before[i], bound(i, given), atol=1e-5)
        best = -optimize.minimize(lambda guess: -bound(i, guess), given).fun
        assert best - 0.03 < after[i] < best + 1e-5
        assert after[i] - before[i] > 0.5 * (best - before[i])


def test_look_at_measures_the_spread_of_the_codes_that_are_drawn():
    mu, sigma = np.array([[-1.0], [1.0], [3.0]]), np.array([[0.4], [1.0], [1.6]])
    x, x_hat = np.ones((3, 1, 1, 2)), np.full((3, 1, 1, 2), 0.25)
    code = functions("vae", x=tensor(x))
    found = code.look_at(lambda _: (tensor(x_hat), tensor(mu), tensor(2 * np.log(sigma))))
    mean_square = (0.16 + 1 + 2.56) / 3
    expected = [2 * np.log(4), (5 / 3) / 1.0, np.sqrt(8 / 3 + mean_square)]
    assert np.allclose(found, expected, rtol=1e-5)


def test_calibrated_loss_is_the_least_over_the_variance():
    x, x_hat = np.random.default_rng(0).random((2, 3, 1, 2, 2))
    zero = tensor(np.zeros((3, 2)))
    found = functions("likelihood").calibrated_loss(
        lambda _: (tensor(x_hat), zero + 1, zero), tensor(x)
    )
    nats = [
        -stats.norm.logpdf(x, x_hat, deviation).sum() / 3 for deviation in np.linspace(0.05, 1, 801)
    ]
    assert np.isclose(found["reconstruction"].item(), min(nats), atol=1e-4)
    assert np.isclose(found["kl"].item(), 1.0)  # half a nat for each of two means of 1
    assert np.isclose(found["loss"].item(), min(nats) + 1, atol=1e-4)


def test_calibrated_loss_pulls_by_the_variance_that_it_finds():
    x, x_hat = np.random.default_rng(0).random((2, 3, 1, 2, 2))
    zero, guess = tensor(np.zeros((3, 2))), tensor(x_hat)
    guess.stop_gradient = False
    functions("likelihood").calibrated_loss(lambda _: (guess, zero, zero), tensor(x))[
        "loss"
    ].backward()
    # at the best variance, the slope is that of normal pixels of this variance
    expected = (x_hat - x) / ((x_hat - x) ** 2).mean() / 3
    assert np.allclose(guess.grad.numpy(), expected, rtol=1e-4)


def test_huber_is_that_of_scipy():
    u = np.linspace(-3, 3, 13)
    assert np.allclose(functions("likelihood").huber(u, 0.8), special.huber(0.8, u))


def test_mean_of_a_continuous_bernoulli_is_the_integral():
    mean_of = functions("likelihood").mean_of
    for lam in (0.1, 0.7):
        total = quad(lambda x, lam=lam: lam**x * (1 - lam) ** (1 - x), 0, 1)[0]
        first = quad(lambda x, lam=lam: x * lam**x * (1 - lam) ** (1 - x), 0, 1)[0]
        assert np.isclose(mean_of(lam), first / total)


def test_error_of_mean_counts_one_degree_of_freedom_less():
    found = functions("likelihood").error_of_mean(np.arange(1.0, 6.0))
    assert np.isclose(found, np.sqrt(0.5))


def test_edges_of_one_dot():
    # a dot of 4 differs from its four neighbours
    dot = np.zeros((1, 1, 3, 3))
    dot[0, 0, 1, 1] = 4
    assert np.isclose(functions("likelihood").edges(tensor(dot)), (8 / 6 + 8 / 6) / (4 / 9))


def test_grey_is_the_share_between():
    found = functions("likelihood").grey(tensor([0.1, 0.3, 0.7, 0.9]))
    assert found == 0.5


def test_free_bits_loss_charges_no_dimension_less_than_the_least():
    mu = np.array([[0.2, 2.0], [-0.4, 1.0]])
    logvar = np.array([[0.1, -1.0], [0.3, 0.5]])
    guess, x = np.full((2, 1, 1, 3), 0.5), np.array([0.0, 0.5, 1.0, 0.1, 0.5, 0.5])
    x = x.reshape(2, 1, 1, 3)
    each = [
        np.mean(
            [
                kl_by_quadrature(stats.norm(m, np.exp(v / 2)), stats.norm())
                for m, v in zip(mu[:, j], logvar[:, j], strict=True)
            ]
        )
        for j in (0, 1)
    ]
    assert each[0] < 0.6 < each[1]
    error = ((guess - x) ** 2).sum() / 2 / 2  # half of it, mean of two images
    found = functions("likelihood").free_bits_loss(
        lambda _: (tensor(guess), tensor(mu), tensor(logvar)), tensor(x), least=0.6
    )
    assert np.isclose(found["kl"].item(), 0.6 + each[1], atol=1e-5)
    assert np.isclose(found["loss"].item(), error + 0.6 + each[1], atol=1e-5)


def test_coupling_is_inverted_by_what_it_leaves_as_it_is():
    W = np.random.default_rng(0).standard_normal((2, 3, 2))
    z = np.array([0.3, -1.2, 0.5, 2.0, -0.7])
    x = functions("likelihood", W=W).coupling(z)
    s, t = np.tanh(W[0] @ x[:2]), np.tanh(W[1] @ x[:2])
    assert np.allclose(x[:2], z[:2]) and np.allclose((x[2:] - t) * np.exp(-s), z[2:])


@pytest.mark.parametrize("page", ["vae", "likelihood"])
def test_black_and_white_is_cut_at_one_half(page):
    data = SimpleNamespace(images=np.array([0.2, 0.49, 0.5, 0.9]))
    assert functions(page).black_and_white(data).tolist() == [0, 0, 1, 1]


# Judging


def test_entropy_of_shares_is_to_the_base_ten():
    entropy_of = functions("judging").entropy_of
    assert np.isclose(entropy_of([5] * 10), 1)
    assert np.isclose(entropy_of([1, 2, 5]), stats.entropy([1, 2, 5], base=10))


def test_nearest_moved_finds_a_copy_one_pixel_away_in_each_direction():
    digits = SimpleNamespace(images=np.random.default_rng(0).random((3, 1, 6, 6)))
    nearest_moved = functions("judging", digits=digits).nearest_moved
    for shift in ((1, 1), (-1, 0), (1, -1)):
        assert np.allclose(nearest_moved(np.roll(digits.images, shift, (2, 3))), 0, atol=1e-6)
    assert nearest_moved(np.roll(digits.images, 2, 3)).min() > 0.5


def test_share_inside_asks_every_ball():
    centres = np.array([[0.0], [1.0], [3.0], [10.0]])  # second neighbours 3, 2, 3 and 9 away
    points = np.array([[-3.0], [-3.1], [5.9], [6.1], [19.0], [19.1]])
    assert np.isclose(functions("judging").share_inside(points, centres, 2), 4 / 6)


# Latent space

SQUARE = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 1.0], [3.0, 5.0]])


def test_slerp_turns_at_an_even_rate_and_keeps_the_ends():
    slerp = functions("latent-space").slerp
    a, b = np.array([[3.0, 0.0]]), np.array([[0.0, 3.0]])
    for t in (0.0, 0.25, 0.5, 1.0):
        angle = t * np.pi / 2
        expected = [[3 * np.cos(angle), 3 * np.sin(angle)]]
        assert np.allclose(slerp(a, b, t), expected, atol=1e-6)


def test_slerp_goes_by_the_angle_of_each_row():
    a, b = np.array([[2.0, 0.0], [0.0, 1.0]]), np.array([[1.0, np.sqrt(3)], [4.0, 0.0]])
    found = functions("latent-space").slerp(a, b, 0.5)
    # in the middle of an angle of 60 degrees, and of 90 degrees between lengths of 1 and 4
    assert np.allclose(found, [[np.sqrt(3), 1], [4 / np.sqrt(2), 1 / np.sqrt(2)]])


def test_draw_normal_has_mean_and_covariance_of_the_codes():
    code = functions("latent-space", rng=np.random.default_rng(0))
    drawn = code.draw_normal(SQUARE, 100_000)
    assert np.allclose(drawn.mean(axis=0), [1.25, 1.5], atol=0.03)
    assert np.allclose(np.cov(drawn.T), np.cov(SQUARE.T), atol=0.08)


def test_lerp_begins_at_a():
    assert np.isclose(functions("latent-space").lerp(2.0, 6.0, 0.25), 3.0)


def test_slant_is_of_a_line():
    image = np.zeros((2, 1, 20, 20))
    for i in range(0, 16, 2):
        image[0, 0, i, 12 - i // 2] = 0.7  # half a pixel to the left with each row down
        image[1, 0, i, 2 + i] = 0.4  # and one to the right
    assert np.allclose(functions("latent-space").slant(image), [0.5, -1.0])


def test_slant_is_the_regression_of_columns_on_rows():
    image = np.random.default_rng(0).random((1, 1, 5, 7))
    i, j = np.indices((5, 7))
    slope = np.polyfit(i.ravel(), j.ravel(), 1, w=np.sqrt(image.ravel()))[0]
    assert np.allclose(functions("latent-space").slant(image), -slope)


def test_class_means_and_what_is_left_within():
    code = functions("latent-space")
    values, labels = np.array([[1.0, 2.0], [3.0, 0.0], [5.0, 6.0]]), np.array([1, 0, 1])
    assert code.class_means(values, labels).tolist() == [[3, 0], [3, 4]]
    assert code.within_classes(values, labels).tolist() == [[-2, -2], [0, 0], [2, 2]]


def test_attribute_vector_leads_from_the_lowest_third_to_the_highest():
    rank = np.array([4, 0, 8, 1, 7, 3, 2, 6, 5])
    codes = rank[:, None] ** 2 * np.array([1.0, -2.0])
    expected = (36 + 49 + 64) / 3 - (0 + 1 + 4) / 3
    found = functions("latent-space").attribute_vector(codes, np.exp(rank))
    assert np.allclose(found, [expected, -2 * expected])


def test_distance_is_the_median_of_the_others():
    codes, others = SQUARE, np.array([[0.0, 3.5], [2.0, 0.5], [30.0, 5.0]])
    assert np.isclose(functions("latent-space").distance(codes, others), 2.5)


# Autoencoders


def test_images_undo_rows_and_add_the_mean():
    pictures = np.random.default_rng(0).random((3, 2, 2, 2))
    code = functions("autoencoder", mean=pictures.reshape(3, -1).mean(axis=0), shape=(2, 2, 2))
    rows = code.rows(pictures)
    assert rows.shape == (3, 8)
    assert np.allclose(code.images(rows - code.mean), pictures)


def test_project_is_the_best_of_its_rank():
    x = np.random.default_rng(0).standard_normal((6, 4)) * [3, 2, 1, 0.5]
    left, values, right = np.linalg.svd(x, full_matrices=False)
    project = functions("autoencoder", components=right.T).project
    assert np.allclose(project(x, 2), left[:, :2] * values[:2] @ right[:2])


def test_typical_correlation_leaves_out_the_diagonal():
    u, v = np.array([1.0, 1, -1, -1]), np.array([1.0, -1, 1, -1])
    vectors = np.stack([u, 3 * (0.6 * u + 0.8 * v), v + 5], axis=1)
    found = functions("autoencoder").typical_correlation(vectors)
    assert np.isclose(found, np.sqrt((0.6**2 + 0.8**2 + 0) / 3))


def test_greyness_is_the_share_between():
    assert functions("autoencoder").greyness(np.array([0.1, 0.3, 0.7, 0.9, 0.95])) == 0.4


# Probability


def test_log_mean_exp_is_over_the_last_axis_and_does_not_overflow():
    x = np.array([[1000, 1000 + np.log(3)], [-1000, -1000 + np.log(7)]])
    found = functions("probability").log_mean_exp(x)
    assert np.allclose(found, [1000 + np.log(2), -1000 + np.log(4)])


def test_box_muller_turns_by_the_second_number():
    found = functions("probability").box_muller(np.exp([-2, -2]), np.array([1 / 4, 1 / 8]))
    assert np.allclose(found, [[0, np.sqrt(2)], [2, np.sqrt(2)]])


def test_coverage_counts_the_estimates_near_the_integral():
    truth = quad(lambda x: np.exp(1.5 * x) * stats.norm.pdf(x), -10, 14)[0]
    inside = 0
    for draws in np.random.default_rng(0).standard_normal((400, 50)):
        f = np.exp(1.5 * draws).tolist()
        error = statistics.stdev(f) / np.sqrt(50)
        inside += truth - 2 * error < statistics.fmean(f) < truth + 2 * error
    code = functions("probability", rng=np.random.default_rng(0))
    assert code.coverage(1.5, n=50, repeats=400) == inside / 400


# Data


def test_logistic_is_that_of_scipy():
    u = np.array([0.0, 0.3, 1.0])
    code = functions("data", digits=None)
    assert np.allclose(code.logistic(u), special.expit(8 * (u - 0.45)))
    assert np.allclose(code.logistic(u, 2, 0.1), special.expit(2 * (u - 0.1)))


def test_contrast_is_a_logistic_step_from_0_to_1():
    u = np.array([0.0, 0.3, 0.5, 1.0])
    steps = special.expit(8 * (u - 0.45))
    expected = (steps - steps[0]) / (steps[-1] - steps[0])
    contrast = functions("data", digits=None).contrast
    assert np.allclose(contrast(u), expected)
    assert contrast(np.array([-0.5, 1.5])).tolist() == [0, 1]


def test_nearest_label_is_that_of_the_least_distance():
    rng = np.random.default_rng(0)
    stored, images = 3 * rng.random((30, 1, 2, 2)), 3 * rng.random((20, 1, 2, 2))
    data = SimpleNamespace(images=stored, labels=np.arange(30) + 100)
    code = functions("data", digits=data)
    expected = cdist(images.reshape(20, 4), stored.reshape(30, 4)).argmin(axis=1) + 100
    assert code.nearest_label(images, data).tolist() == expected.tolist()
    expected[:5] = 0
    assert code.accuracy(images, expected) == 0.75
    few = SimpleNamespace(images=stored[:3], labels=np.arange(3))
    expected = cdist(images.reshape(20, 4), stored[:3].reshape(3, 4)).argmin(axis=1)
    assert code.accuracy(images, expected, few) == 1


# Latent diffusion


def test_log_normal_adds_the_log_densities_of_a_code():
    z, mu = np.random.default_rng(0).standard_normal((2, 3, 4))
    sigma = np.array([0.5, 1.0, 1.5, 2.0])
    found = functions("latent-diffusion").log_normal(z, mu, sigma)
    assert np.allclose(found, stats.norm.logpdf(z, mu, sigma).sum(axis=1))


def test_multiplications_of_a_convolution_and_a_linear_layer():
    code = functions("latent-diffusion")
    network = code.nn.Sequential(
        code.nn.Conv2D(2, 3, 3, padding=1),  # to 3 numbers in 20 places, of 2 x 9 each
        code.nn.Conv2D(3, 1, 1),  # to one number in 20 places, of 3
        code.nn.Flatten(),
        code.nn.Linear(20, 7),
    )
    found = code.multiplications(network, paddle.zeros([1, 2, 4, 5]))
    assert found == 20 * 3 * 18 + 20 * 3 + 140


def test_normal_like_has_mean_and_covariance_of_the_codes():
    code = functions("latent-diffusion", rng=np.random.default_rng(0))
    drawn = code.normal_like(SQUARE, 100_000)
    assert np.allclose(drawn.mean(axis=0), [1.25, 1.5], atol=0.03)
    assert np.allclose(np.cov(drawn.T), np.cov(SQUARE.T), atol=0.08)


class HalfScale:
    """A scale of codes that halves them."""

    @staticmethod
    def to_unit(mu):
        return mu / 2

    @staticmethod
    def to_code(u):
        return 2 * u


def test_denoise_loss_trains_on_the_codes_of_unit_size_and_their_labels():
    def model(u, t, labels):
        return u + 10 * labels

    process = SimpleNamespace(training_loss=lambda network, u: network(u, 0))
    code = functions("latent-diffusion", scale=HalfScale)
    assert code.denoise_loss(3.0, process, model, 4.0, 5.0) == 56


def test_sample_codes_are_of_the_size_of_codes_and_of_each_label_in_turn():
    asked = []

    def denoiser(u, t, labels=None):
        asked.append(None if labels is None else labels.tolist())
        return 0 * u

    class Process:
        def ddim_sample_loop(self, model, shape, steps):
            return model(tensor(np.ones(shape)), 0) + steps

    code = functions(
        "latent-diffusion",
        scale=HalfScale,
        process=Process(),
        denoiser=denoiser,
        digits=SimpleNamespace(classes="abc"),
        vae=SimpleNamespace(latent_dim=2),
    )
    assert code.sample_codes(5, 0.0, steps=7).tolist() == [[14.0, 14.0]] * 5
    code.sample_codes(5, None)
    assert asked == [[0, 1, 2, 0, 1], None]


# Pitfalls


def pitfalls(**names):
    names = {"labels": None, "diffusion": None, "network": None, "n": 1, **names}
    return functions("pitfalls", **names)


def test_deviation_from_truth_is_none_for_the_right_step_and_known_for_one_step():
    betas = pitfalls().cosine_beta_schedule(1000)
    process = GaussianDiffusion(betas, prediction="v")
    code = pitfalls(diffusion=process)
    assert code.deviation_from_truth(process) < 1e-5
    paddle.seed(0)
    noise, left = paddle.randn([50, 1, 4, 4]).numpy(), np.cumprod(1 - betas)
    ends = [np.sqrt(left[t]) * 0.4 + np.sqrt(1 - left[t]) * noise for t in (699, 300)]
    found = code.deviation_from_truth(code.OneStep(betas, prediction="v"))
    assert np.isclose(found, abs(ends[0] - ends[1]).max(), atol=1e-4)


def test_stale_noise_differs_only_where_the_image_is_clipped():
    process = GaussianDiffusion(BETAS, prediction="v")
    stale = pitfalls().StaleNoise(BETAS, prediction="v")
    start, noise = tensor([[[[0.4]]], [[[1.5]]]]), tensor([[[[-0.7]]], [[[0.2]]]])
    now, then = (paddle.full([2], t, dtype="int64") for t in (3, 1))
    x_t = process.q_sample(start, now, noise)

    def knows_all(x, t):
        return process.target(start, t, noise)

    found = stale.ddim_sample(knows_all, x_t, now, then).numpy().ravel()
    left = 0.9 * 0.8
    expected = np.sqrt(left) * np.array([0.4, 1.0]) + np.sqrt(1 - left) * np.array([-0.7, 0.2])
    assert np.allclose(found, expected, atol=1e-5)
    right = process.ddim_sample(knows_all, x_t, now, then).numpy().ravel()
    assert np.isclose(found[0], right[0], atol=1e-5)
    assert abs(found[1] - right[1]) > 0.1


def test_leading_steps_end_at_zero_and_begin_a_stride_early():
    steps = pitfalls().Leading(np.full(1000, 0.01)).ddim_timesteps(4)
    assert steps.tolist() == [750, 500, 250, 0]


def test_noise_network_is_the_noise_that_v_stands_for():
    process = a_process("v")
    start, noise = tensor([[[[0.4]]]]), tensor([[[[-0.7]]]])
    for t in (paddle.to_tensor([0]), paddle.to_tensor([3])):
        v = process.target(start, t, noise)
        code = pitfalls(diffusion=process, network=lambda x, t: v)
        found = code.noise_network(process.q_sample(start, t, noise), t)
        assert np.isclose(found.item(), -0.7, atol=1e-6)


def test_at_level_asks_for_the_step_of_the_nearest_noise():
    known = SimpleNamespace(alphas_cumprod=np.array([0.9, 0.6, 0.3, 0.1]))
    other = SimpleNamespace(alphas_cumprod=np.array([0.95, 0.7, 0.18]))
    code = pitfalls(diffusion=known, network=lambda x, t: t)
    asked = code.at_level(other)(None, paddle.to_tensor([0, 1, 2]))
    assert asked.tolist() == [0, 1, 3]


def test_told_changes_the_step_alone():
    found = pitfalls(network=lambda x, t: (x, t)).told(lambda t: 2 * t)("x", 3)
    assert found == ("x", 6)


def test_noisy_end_adds_noise_after_the_last_step():
    steps = paddle.zeros([20_000], dtype="int64")
    x = paddle.zeros([20_000, 1, 1, 1])
    paddle.seed(0)
    found = pitfalls().NoisyEnd(BETAS).p_sample(lambda x, t: 0 * x, x, steps)
    # of the variance of the step before, which stands in for 0
    assert np.isclose(found.var().item(), 0.2 * 0.1 / (1 - 0.72), rtol=0.03)


class OneNumber:
    """A model with codes of four numbers and one pixel, whose decoder ignores them."""

    latent_dim = 4

    def __init__(self, mu, logvar):
        self.code = tensor([[mu] * 4] * 2), tensor([[logvar] * 4] * 2)

    def encode(self, x):
        return self.code

    def decode(self, z):
        return tensor([[[[0.25, 0.5]]]] * 2)

    def __call__(self, x):
        return self.decode(None), *self.code


ONES = np.ones((2, 1, 1, 2))


def test_wrong_losses_are_wrong_where_they_say():
    code, model, x = pitfalls(), OneNumber(0.5, -1.0), tensor(ONES)
    error = np.log(4) + np.log(2)
    divergence = 4 * kl_by_quadrature(stats.norm(0.5, np.exp(-0.5)), stats.norm())
    assert np.isclose(code.kl_averaged(model, x).item(), error + divergence / 4)
    assert np.isclose(code.pixels_averaged(model, x).item(), error / 2 + divergence)
    confused = 4 * kl_by_quadrature(
        stats.norm(0.5, np.exp(np.exp(-1) / 2)), stats.norm()
    )  # log sigma^2 = exp(-1)
    assert np.isclose(code.variance_for_log(model, x).item(), error + confused)
    assert np.isclose(code.half_forgotten(model, x).item(), error + divergence)


def test_half_forgotten_draws_with_the_variance_as_deviation():
    model, drawn = OneNumber(0.5, -1.0), []
    model.decode = lambda z: drawn.append(z.numpy()) or tensor(ONES / 2)
    paddle.seed(0)
    pitfalls().half_forgotten(model, tensor(ONES))
    paddle.seed(0)
    assert np.allclose(drawn[0], 0.5 + np.exp(-1) * paddle.randn([2, 4]).numpy(), atol=1e-6)


def test_differing_rough_and_worse_of_two_rows():
    found = pitfalls(
        rows={"right": np.array([[0.0, 0.5, 1.0]]), "other": np.array([[0.3, 0.4, 0.2]])},
        scores={
            "right": SimpleNamespace(legible=0.9, frechet=10.0),
            "other": SimpleNamespace(legible=0.6, frechet=25.0),
        },
    )
    assert np.isclose(found.differing("other"), 2 / 3)
    assert np.isclose(found.rough("other"), 0.15)
    assert np.allclose(found.worse("other"), [0.3, 15])


# Scaling


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ring_all_reduce_gives_every_rank_the_sum(ranks):
    vectors = np.random.default_rng(0).integers(-9, 9, (ranks, 12))
    sums, sent = functions("scaling").ring_all_reduce(list(vectors))
    assert all(total.tolist() == vectors.sum(axis=0).tolist() for total in sums)
    assert len(sums) == ranks
    assert sent == 2 * (ranks - 1) * 12 // ranks


def test_to_bfloat16_rounds_as_paddle_does():
    x = np.random.default_rng(0).standard_normal(1000).astype("float32")
    ties = 1 + np.arange(16, dtype="float32") / 2**8  # each second one lies halfway
    x = np.concatenate([x, ties, -ties, [0.0, 3e38, 1e-30]]).astype("float32")
    expected = tensor(x).astype("bfloat16").astype("float32").numpy()
    assert functions("scaling").to_bfloat16(x).tolist() == expected.tolist()


def test_to_bfloat16_takes_ties_to_even():
    found = functions("scaling").to_bfloat16(1 + np.array([1, 3, -1]) / 2**8)
    assert found.tolist() == [1, 1 + 4 / 2**8, 1 - 1 / 2**8]


def test_gradients_are_those_by_differences():
    rng, h = np.random.default_rng(0), 1e-2
    model, x = paddle.nn.Linear(3, 2), tensor(rng.standard_normal((4, 3)))
    code = functions("scaling")

    def loss():
        return model(x).square().sum()

    expected = []
    for p in model.parameters():
        start = p.numpy().copy()
        for i in np.ndindex(start.shape):
            ends = []
            for sign in (1, -1):
                moved = start.copy()
                moved[i] += sign * h
                p.set_value(moved)
                ends.append(loss().item())
            expected.append((ends[0] - ends[1]) / (2 * h))
        p.set_value(start)
    for _ in range(2):  # what an earlier loss left is not added
        assert np.allclose(code.gradients(model, loss), expected, atol=1e-2)
    model.bias.stop_gradient = True
    assert np.allclose(code.gradients(model, loss), expected[:6], atol=1e-2)


def test_vae_loss_with_is_a_mean_over_images():
    found = functions("scaling").vae_loss_with(
        lambda x, eps: OneNumber(0.5, -1.0)(x), tensor(ONES), None
    )
    divergence = 4 * kl_by_quadrature(stats.norm(0.5, np.exp(-0.5)), stats.norm())
    assert np.isclose(found.item(), np.log(8) + divergence)


def test_autoencoder_gradient_is_of_the_mean_over_a_batch():
    x = np.random.default_rng(0).random((4, 3)).astype("float32")
    model = paddle.nn.Linear(3, 3)
    found = functions("scaling", model=model).autoencoder_gradient(x)
    away = x @ model.weight.numpy() + model.bias.numpy() - x
    expected = np.concatenate([(2 / 12 * x.T @ away).ravel(), 2 / 12 * away.sum(axis=0)])
    assert np.allclose(found, expected, atol=1e-6)


# U-Net


def test_trace_counts_the_work_of_each_part():
    code = functions("unet")

    class Network(code.nn.Layer):
        def __init__(self):
            super().__init__()
            self.first = code.nn.Conv2D(2, 3, 3, stride=2, padding=1)
            self.second = code.nn.Sequential(
                code.nn.Conv2DTranspose(3, 1, 2, stride=2), code.nn.Flatten(), code.nn.Linear(24, 5)
            )

        def forward(self, x, t):
            return self.second(self.first(x))

    # 4 x 6 pixels to 2 x 3 places and back
    first = ("first", [3, 2, 3], 2 * 3 * 9 + 3, 6 * 2 * 3 * 9)
    second = ("second", [5], 3 * 4 + 1 + 24 * 5 + 5, 6 * 3 * 4 + 24 * 5)
    assert code.trace(Network(), paddle.zeros([1, 2, 4, 6]), None) == [first, second]


@pytest.mark.parametrize(("width", "channels", "classes"), [(8, 1, 0), (8, 3, 5), (16, 2, 2)])
def test_parameters_are_those_of_the_network(width, channels, classes):
    code = functions("unet")
    network = code.UNet(channels=channels, width=width, classes=classes)
    built = sum(p.size for p in network.parameters())
    assert code.parameters(width, channels, classes) == built


def test_without_silences_some_channels_until_its_hook_is_removed():
    code = functions("unet")

    class Passing(code.nn.Layer):
        def forward(self, h, temb):
            return h + temb

    block, h = Passing(), tensor(np.arange(1.0, 6)).reshape([1, 5, 1, 1])
    hook = code.without(block, 1, 3)
    assert block(h, 0.5).numpy().ravel().tolist() == [1.5, 0.5, 0.5, 4.5, 5.5]
    hook.remove()
    assert block(h, 0.5).numpy().ravel().tolist() == [1.5, 2.5, 3.5, 4.5, 5.5]


def test_over_the_batch_lets_the_images_share_mean_and_variance():
    h = np.random.default_rng(0).random((3, 16, 2, 2))
    mean, variance = h.mean(axis=(0, 2, 3)), h.var(axis=(0, 2, 3))
    expected = (h.transpose(0, 2, 3, 1) - mean) / np.sqrt(variance + 1e-5)
    found = functions("unet").over_the_batch(tensor(h)).numpy()
    assert np.allclose(found.transpose(0, 2, 3, 1), expected, atol=1e-5)


# Improving and comparison


def test_narrow_normal_is_minus_the_log_density_less_a_constant():
    x_hat, x = tensor([0.1, 0.5, 0.9]), tensor([0.4, 0.5, 0.1])
    found = functions("improving", digits=None).narrow_normal(x_hat, x).numpy()
    nats = -stats.norm.logpdf([0.4, 0.5, 0.1], [0.1, 0.5, 0.9], np.sqrt(0.05))
    assert np.allclose(found - found[1], nats - nats[1], atol=1e-5)


def test_samples_of_a_labelled_model_have_each_class_in_turn():
    sample, asked = functions("improving", digits=None).sample, []
    model = SimpleNamespace(latent_dim=2, classes=3, decode=lambda z, y: asked.append(y) or z)
    assert sample(model, n=5).shape == (5, 2)
    model.classes = 0
    sample(model, n=5)
    assert asked[0].tolist() == [0, 1, 2, 0, 1]
    assert asked[1] is None


def test_heavy_ink_counts_ink_twice():
    x = tensor([[[[1.0, 0.0]]], [[[1.0, 0.0]]]])
    found = functions("improving", digits=None).heavy_ink(OneNumber(0.5, 0.0), x)
    assert np.isclose(found["reconstruction"].item(), 2 * np.log(4) + np.log(2))
    assert np.isclose(found["kl"].item(), 4 * 0.125)
    assert np.isclose(found["loss"].item(), 2 * np.log(4) + np.log(2) + 0.5)


def test_gain_is_positive_for_the_better_line():
    scores = {
        "new": SimpleNamespace(legible=0.9, frechet=10.0),
        "old": SimpleNamespace(legible=0.6, frechet=25.0),
    }
    code = functions("improving", digits=None, scores=scores)
    assert np.allclose(code.gain("new", "old"), [0.3, 15])


def test_steps_in_takes_milliseconds():
    code = functions("comparison", STEP={"model": 8.0, "first stage": 4.0})
    assert code.steps_in(2) == {"model": 250, "first stage": 250}  # a stage has half of the time
    assert code.steps_in(0.001) == {"model": 1, "first stage": 1}


def test_row_has_the_deviation_over_the_seeds():
    code = functions("comparison", KEYS={"legible": 3, "error": 2})
    found = code.row("model", [{"legible": value} for value in (0.5, 0.6, 0.7)])
    assert found.split() == ["model", "0.600", "±", "0.100", "-"]


# Attention


def test_heard_is_the_squared_slope_of_the_middle():
    process, x = a_process("v"), tensor(np.zeros([4, 1, 4, 4]))
    code = functions(
        "transformer", diffusion=process, x_start=x, labels=paddle.zeros([4]), middle=2
    )
    # v is the image turned by half a turn, times -3: pixel (1, 1) comes to (2, 2)
    found = code.heard(lambda x_t, t, labels: -3 * x_t.flip([2, 3]), step=2, n=4)
    a_bar = process.alphas_cumprod[1]
    expected = np.zeros((4, 4))
    expected[2, 2], expected[1, 1] = a_bar, 9 * (1 - a_bar)
    assert np.allclose(found, expected, atol=1e-5)


def test_maps_are_fourth_roots_relative_to_the_largest():
    found = functions("transformer").as_maps([np.array([[1.0, 16]]), np.array([[9.0, 0.0]])])
    assert np.allclose(found, [[[[0.5, 1.0]]], [[[1.0, 0.0]]]])


def test_look_up_is_bayes_rule():
    rng, process = np.random.default_rng(0), a_process()
    training, x_t = rng.normal(size=(5, 3)), rng.normal(size=(2, 3))
    code = functions("transformer", training=training, diffusion=process)
    estimate, weights = code.look_up(x_t, 3)
    a_bar = process.alphas_cumprod[2]
    for x, found, a in zip(x_t, estimate.numpy(), weights.numpy()):
        p = stats.norm.pdf(x, np.sqrt(a_bar) * training, np.sqrt(1 - a_bar)).prod(axis=1)
        assert np.allclose(a, p / p.sum()) and np.allclose(found, p @ training / p.sum())


def test_costs_of_attention_and_of_a_convolution():
    assert functions("transformer").costs(5, 2) == (4 * 5 * 4 + 2 * 25 * 2, 9 * 5 * 4)


def test_multiplications_counts_every_place_and_every_pair():
    code = functions("transformer", x_start=paddle.zeros([3, 1, 4, 4]))

    class Network(code.nn.Layer):
        def __init__(self):
            super().__init__()
            self.first = code.nn.Conv2D(1, 3, 3, stride=2, padding=1)
            self.second = code.nn.Conv2DTranspose(3, 6, 2, stride=2)
            self.third = code.SelfAttention(6, 2)

        def forward(self, x, t):
            h = self.second(self.first(x))
            return self.third(h.flatten(2).transpose([0, 2, 1]))

    expected = 4 * 27 + 4 * 3 * 6 * 4 + 16 * (6 * 18 + 6 * 6) + 2 * 16**2 * 6
    assert code.multiplications(Network()) == expected


def test_losses_and_estimates_at_a_step():
    process, x = a_process("v", clip=1.0), tensor(np.linspace(-1, 1, 32).reshape(2, 1, 4, 4))
    labels = paddle.to_tensor([1, 2])
    names = {"diffusion": process, "x_start": x, "labels": labels, "test": [0, 1]}
    code = functions("transformer", **names)

    def network(x_t, t, told):  # v of the clean image, if the labels are right
        a_bar = float(process.alphas_cumprod[int(t[0])])
        right = (told == labels[: len(told)]).astype("float32").reshape([-1, 1, 1, 1])
        return right * (a_bar**0.5 * x_t - x[: len(x_t)]) / (1 - a_bar) ** 0.5

    x_t = process.q_sample(x[:1], paddle.to_tensor([2]))
    assert np.allclose(code.estimates(network, x_t, 3), (x[:1].numpy() + 1) / 2, atol=1e-5)
    found = code.losses_of(network, (3,))
    assert list(found) == [3] and np.allclose(found[3], [0, 0], atol=1e-6)


def test_look_has_the_weights_of_all_heads_of_all_blocks():
    paddle.seed(0)
    x = paddle.randn([3, 1, 4, 4])
    names = {"diffusion": a_process("v"), "x_start": x, "labels": paddle.to_tensor([0, 1, 2])}
    code = functions("transformer", **names)
    network = code.DiT(1, 2, width=8, blocks=2, heads=2, classes=3)
    x_t, weights = code.look(network, 2, n=3)
    assert x_t.shape == [3, 1, 4, 4] and weights.shape == (2, 3, 2, 4, 4)
    assert np.allclose(weights.sum(axis=4), 1, atol=1e-5)
    tokens = []
    network.blocks[0].attention.register_forward_pre_hook(lambda layer, i: tokens.append(i[0]))
    network(x_t, paddle.to_tensor([1, 1, 1]), names["labels"])
    for head, (q, k, _) in enumerate(network.blocks[0].attention.split(tokens[0])):
        scores = (q @ k.transpose([0, 2, 1])).numpy() / 2
        expected = special.softmax(scores, axis=2)
        assert np.allclose(weights[0, :, head], expected, atol=1e-5)


def test_maps_of_a_query_are_patches_of_one_shade():
    code = functions("transformer", rows=2, columns=2, query=1)
    picture = code.as_picture(np.array([0.1, 0.4, 0.2, 0.3]))
    assert picture.shape == (1, 8, 8)
    assert np.allclose(picture[0, ::4, ::4], [[0.25, 1], [0.5, 0.75]])
    weights = np.zeros((1, 2, 4, 4)) + 0.5
    weights[0, 1, 1] = [0, 1, 0, 0]
    found = code.row_of(np.zeros((1, 8, 8)), weights)
    assert found.shape == (3, 1, 8, 8)
    assert found[1].min() == 1 and found[2, 0, 0, 4] == 1 and found[2].sum() == 16


def test_moved_images_leave_black_behind():
    images = tensor(np.arange(8).reshape(1, 1, 2, 4))
    found = functions("transformer").moved(images, 3)
    assert np.array_equal(found[0, 0], [[-1, -1, -1, 0], [-1, -1, -1, 4]])
    assert np.array_equal(functions("transformer").moved(images, 0), images)


def test_of_heads_tells_fixed_looks_from_those_that_the_image_decides():
    gaps = np.abs(np.subtract.outer(np.arange(4), np.arange(4)))
    code = functions("transformer", gaps=gaps)
    left, right = np.eye(4)[[0, 0, 1, 2]], np.eye(4)[[1, 2, 3, 3]]
    weights = np.array([[left, left], [left, right]], dtype="float64")  # [2 images, 2 heads]
    reach, largest, share = code.of_heads(weights)
    assert np.allclose(reach, 0.75) and np.allclose(largest, 1)
    # the deviation from 1 / 4 has the mean square 3 / 16; that between images is 1 / 4 or 0
    apart = (left != right).mean() / 4
    assert np.allclose(share, [0, apart / (3 / 16)])


def test_difference_has_the_error_of_a_mean_of_differences():
    code = functions("transformer")
    a, b = {5: np.array([1.0, 2, 3, 4])}, {5: np.array([2.0, 2, 5, 7])}
    (mean,), (error,) = code.difference(a, b)
    assert np.isclose(mean, 1.5) and np.isclose(error, np.std([1, 0, 2, 3]) / 2)


def test_harm_is_what_moving_adds():
    losses = {(50, "U-Net", 0): np.array([1.0, 2]), (50, "U-Net", 4): np.array([3.0, 2])}
    assert np.array_equal(functions("transformer", moved_loss=losses).harm(50, "U-Net", 4), [2, 0])


# Discrete codes


def discrete(**names):
    usual = {"shape": (1, 8, 12), "sides": (2, 3), "places": 6}
    entries = np.arange(-6, 6) + 0.5
    return functions(
        "discrete-codes",
        **{**usual, "entries": entries, "borders": entries[1:] - 0.5, "masked": None, **names},
    )


def test_patches_are_squares_of_pixels_row_by_row():
    images = np.random.default_rng(0).random((2, 1, 8, 12), dtype="float32")
    found = discrete().patches(images)
    assert np.array_equal(found[6 + 4], images[1, 0, 4:8, 4:8].ravel())
    assert np.array_equal(discrete().put_together(found), images)


def test_k_means_finds_clouds_that_lie_apart():
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    rows = np.concatenate([c + 0.1 * rng.standard_normal((50, 2)) for c in centres])
    book = discrete().k_means(tensor(rows), 6)
    near = cdist(rows, book.vectors.numpy()).min(axis=1)
    assert near.max() < 1
    assert np.unique(book.nearest(tensor(rows)).numpy()).size == 6


def test_each_place_alone_draws_each_token_from_an_image_of_the_label():
    tokens, labels = np.arange(36).reshape(6, 6), np.array([0, 1, 0, 1, 2, 2])
    asked = np.array([2, 0, 1] * 200)
    found = discrete().each_place_alone(tokens, labels, asked).numpy()
    assert np.array_equal(found % 6, np.tile(np.arange(6), (600, 1)))  # 6 n + i at place i
    assert np.array_equal(labels[found // 6], np.tile(asked, (6, 1)).T)
    first = found[asked == 0] // 6
    assert set(first[:, 0]) == {0, 2} and (first[:, 0] != first[:, 1]).any()


def test_slopes_are_those_of_the_mean_loss_and_of_the_chosen_entries():
    code, m = discrete(), np.array([-0.4, 0.1, 1.3])
    draws = m + 0.3 * np.random.default_rng(0).standard_normal((400_000, 1))
    chosen = np.round(draws - 0.5) + 0.5
    true, estimate = code.slopes(m, 0.3)
    assert np.allclose(estimate, (2 * (chosen - 0.3)).mean(axis=0), atol=0.02)
    assert np.allclose(code.shares(m, 0.3)[:, 6], (chosen == 0.5).mean(axis=0), atol=0.005)
    h = 1e-3
    means = [code.shares(m + d, 0.3) @ (code.entries - 0.3) ** 2 for d in (-h, h)]
    assert np.allclose(true, (means[1] - means[0]) / (2 * h), atol=1e-4)


def test_the_sum_of_straight_through_is_that_of_trapeziums():
    slope = 3 * np.array([0.0, 0.5, 1.0, 1.5, 2.0]) ** 2
    found = discrete().summed(0.5)
    assert np.allclose(found, [np.trapezoid(slope, dx=0.5), 8])


class Table:
    """A masked network whose answer depends on how many tokens it sees, and on the label."""

    size = 3

    def __init__(self):
        self.seen = []

    def __call__(self, tokens, labels):
        self.seen.append(tokens.numpy())
        visible = (tokens != 3).astype("float32").sum(axis=1).reshape([-1, 1, 1])
        scores = visible * tensor([0.0, 0.3, -0.2]) + labels.reshape([-1, 1, 1]).astype(
            "float32"
        ) * tensor([1, 0, 0])
        return scores.expand([len(tokens), tokens.shape[1], 3])


def test_raster_bits_show_the_tokens_before_each_place():
    code = np.array([[2, 0, 1, 1, 0, 2], [0, 0, 1, 2, 2, 1]])
    table = Table()
    found = discrete(masked=table).raster_bits(paddle.to_tensor(code), paddle.to_tensor([0, 1]))
    expected = np.zeros(2)
    for n, label in enumerate([0, 1]):
        for i in range(6):
            scores = i * np.array([0.0, 0.3, -0.2]) + label * np.array([1, 0, 0])
            expected[n] -= special.log_softmax(scores)[code[n, i]] / np.log(2)
    assert np.allclose(found, expected, atol=1e-4)
    for i, tokens in enumerate(table.seen):
        assert np.array_equal(tokens[:, :i], code[:, :i]) and (tokens[:, i:] == 3).all()


def test_a_continued_code_keeps_what_is_visible_and_draws_the_rest():
    code = paddle.to_tensor(np.tile([2, 0, 1, 1, 0, 2], (3000, 1)))
    hidden = paddle.to_tensor([False, True, False, True, True, False])
    paddle.seed(0)
    labels = paddle.zeros([3000], dtype="int64")
    found = discrete(masked=Table()).continued(code, hidden, labels, 1).numpy()
    assert np.array_equal(found[:, ~hidden.numpy()], code.numpy()[:, ~hidden.numpy()])
    expected = special.softmax(3 * np.array([0.0, 0.3, -0.2]))
    for i in (1, 3, 4):
        assert np.allclose(np.bincount(found[:, i], minlength=3) / 3000, expected, atol=0.04)


def test_mean_and_error_are_those_of_the_mean():
    mean, error = discrete().mean_and_error(np.array([1.0, 2.0, 6.0]))
    assert np.isclose(mean, 3) and np.isclose(error, np.sqrt(14 / 3 / 3))
