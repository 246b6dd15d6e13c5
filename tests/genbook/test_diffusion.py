import itertools

import numpy as np
import paddle
import pytest
from scipy import stats

from genbook.diffusion import (
    GaussianDiffusion,
    cosine_beta_schedule,
    extract,
    guided,
    hide_labels,
    linear_beta_schedule,
)

T = 50


@pytest.fixture(params=[linear_beta_schedule, cosine_beta_schedule])
def diffusion(request):
    return GaussianDiffusion(request.param(T))


def steps(t, n=1):
    return paddle.full([n], t, dtype="int64")


def pixel(value):
    return paddle.full([1, 1, 1, 1], value)


def model_of(x_start, diffusion):
    """The perfect network for data that consists of the one image x_start."""
    return lambda x_t, t: diffusion.predict_noise_from_start(x_t, t, x_start)


# Schedules


@pytest.mark.parametrize("timesteps", [10, 100, 1000, 4000])
@pytest.mark.parametrize("schedule", [linear_beta_schedule, cosine_beta_schedule])
def test_schedules_leave_hardly_any_image_at_the_end(schedule, timesteps):
    betas = schedule(timesteps)
    assert betas.dtype == np.float64 and betas.shape == (timesteps,)
    assert (betas > 0).all() and (betas <= 0.999).all()
    assert np.prod(1 - betas) < 1e-3


def test_linear_schedule_is_that_of_the_paper():
    betas = linear_beta_schedule(1000)
    np.testing.assert_allclose([betas[0], betas[-1]], [1e-4, 0.02], rtol=1e-12)
    np.testing.assert_allclose(np.diff(betas), (0.02 - 1e-4) / 999, rtol=1e-6)


def test_cosine_schedule_follows_its_formula_until_the_clip():
    alpha_bar = np.cumprod(1 - cosine_beta_schedule(1000))
    t = np.arange(1, 1001)
    formula = np.cos((t / 1000 + 0.008) / 1.008 * np.pi / 2) ** 2
    formula /= np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    np.testing.assert_allclose(alpha_bar[:-1], formula[:-1], rtol=1e-9)
    assert cosine_beta_schedule(1000)[-1] == 0.999
    assert alpha_bar[-1] > 0


def test_arrays_are_float64_and_belong_together(diffusion):
    alphas = 1 - diffusion.betas
    for name, value in vars(diffusion).items():
        if isinstance(value, np.ndarray):
            assert value.dtype == np.float64 and value.shape == (T,), name
    running, before = 1.0, []
    for alpha, alpha_bar in zip(alphas, diffusion.alphas_cumprod, strict=True):
        before.append(running)
        running *= alpha
        np.testing.assert_allclose(alpha_bar, running, rtol=1e-12)
    np.testing.assert_allclose(diffusion.alphas_cumprod_prev, before, rtol=1e-12)
    np.testing.assert_allclose(
        diffusion.sqrt_alphas_cumprod**2 + diffusion.sqrt_one_minus_alphas_cumprod**2, 1
    )


@pytest.mark.parametrize("betas", [[], [0.0, 0.1], [0.1, 1.0], [-0.1], [[0.1]], [np.nan]])
def test_impossible_betas_are_refused(betas):
    with pytest.raises(ValueError, match="betas"):
        GaussianDiffusion(betas)


def test_unknown_prediction_is_refused():
    with pytest.raises(ValueError, match="'x0'"):
        GaussianDiffusion([0.1], prediction="x0")


# The forward process


def test_q_sample_has_the_moments_of_single_steps(diffusion):
    n, x_0, last = 100_000, 0.6, 9
    rng = np.random.default_rng(0)
    x = np.full(n, x_0)
    for beta in diffusion.betas[: last + 1]:
        x = np.sqrt(1 - beta) * x + np.sqrt(beta) * rng.standard_normal(n)
    paddle.seed(0)
    direct = diffusion.q_sample(paddle.full([n, 1, 1, 1], x_0), steps(last, n)).numpy()
    error = x.std() * np.sqrt(2 / n)
    assert abs(direct.mean() - x.mean()) < 4 * error
    assert abs(direct.std() - x.std()) < 4 * error


def test_the_first_step_adds_one_beta_of_noise(diffusion):
    x = diffusion.q_sample(pixel(1.0), steps(0), noise=pixel(1.0)).item()
    np.testing.assert_allclose(
        x, np.sqrt(1 - diffusion.betas[0]) + np.sqrt(diffusion.betas[0]), rtol=1e-6
    )


def test_each_image_of_a_batch_has_its_own_step(diffusion):
    x, noise = paddle.randn([3, 2, 4, 4]), paddle.randn([3, 2, 4, 4])
    t = [0, 20, T - 1]
    batch = diffusion.q_sample(x, paddle.to_tensor(t), noise).numpy()
    for i, step in enumerate(t):
        one = diffusion.q_sample(x[i : i + 1], steps(step), noise[i : i + 1]).numpy()
        np.testing.assert_array_equal(batch[i : i + 1], one)


def test_noise_and_start_are_recovered(diffusion):
    x, noise = paddle.rand([8, 1, 4, 4]) * 2 - 1, paddle.randn([8, 1, 4, 4])
    t = paddle.arange(0, 40, 5)
    x_t = diffusion.q_sample(x, t, noise)
    np.testing.assert_allclose(
        diffusion.predict_start_from_noise(x_t, t, noise).numpy(), x.numpy(), atol=1e-4
    )
    np.testing.assert_allclose(
        diffusion.predict_noise_from_start(x_t, t, x).numpy(), noise.numpy(), atol=1e-4
    )
    v = (
        diffusion.sqrt_alphas_cumprod[t.numpy()].reshape(-1, 1, 1, 1) * noise.numpy()
        - diffusion.sqrt_one_minus_alphas_cumprod[t.numpy()].reshape(-1, 1, 1, 1) * x.numpy()
    )
    v = paddle.to_tensor(v, dtype="float32")
    np.testing.assert_allclose(
        diffusion.predict_start_from_v(x_t, t, v).numpy(), x.numpy(), atol=1e-5
    )


@pytest.mark.parametrize("t", [-1, T])
def test_steps_out_of_range_are_refused(diffusion, t):
    with pytest.raises(IndexError, match=f"from 0 to {T - 1}"):
        diffusion.q_sample(pixel(0.0), steps(t))


# The posterior


@pytest.mark.parametrize("t", [1, 2, 25, T - 2])
def test_posterior_against_bayes_rule_on_a_grid(diffusion, t):
    x_0, x_t = 0.4, -0.3
    beta, previous = diffusion.betas[t], np.prod(1 - diffusion.betas[:t])
    middle = np.sqrt(previous) * x_0
    grid = np.linspace(min(middle, x_t) - 8, max(middle, x_t) + 8, 400_001)
    log_weight = -((x_t - np.sqrt(1 - beta) * grid) ** 2) / (2 * beta)
    log_weight -= (grid - middle) ** 2 / (2 * (1 - previous))
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    mean = (weight * grid).sum()
    variance = (weight * (grid - mean) ** 2).sum()

    got = diffusion.q_posterior_mean_variance(pixel(x_0), pixel(x_t), steps(t))
    np.testing.assert_allclose(got[0].item(), mean, atol=2e-6)
    np.testing.assert_allclose(got[1].item(), variance, rtol=1e-4)
    np.testing.assert_allclose(got[2].item(), np.log(variance), atol=1e-4)


def test_posterior_of_the_first_step_is_the_image_itself(diffusion):
    mean, variance, log_variance = diffusion.q_posterior_mean_variance(
        pixel(0.4), pixel(-0.3), steps(0)
    )
    np.testing.assert_allclose(mean.item(), 0.4, rtol=1e-6)
    assert variance.item() == 0
    assert log_variance.item() == np.float32(np.log(diffusion.posterior_variance[1]))


def test_a_schedule_of_a_single_step_works():
    diffusion = GaussianDiffusion([0.9])
    x = diffusion.p_sample_loop(model_of(pixel(0.5), diffusion), [1, 1, 1, 1])
    np.testing.assert_allclose(x.item(), 0.5, atol=1e-5)


# The loss


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_a_perfect_prediction_has_no_loss(prediction):
    diffusion = GaussianDiffusion(cosine_beta_schedule(T), prediction)
    x, noise, t = paddle.rand([5, 1, 4, 4]), paddle.randn([5, 1, 4, 4]), paddle.arange(5)
    a = diffusion.sqrt_alphas_cumprod[:5].reshape(-1, 1, 1, 1)
    b = diffusion.sqrt_one_minus_alphas_cumprod[:5].reshape(-1, 1, 1, 1)
    right = noise.numpy() if prediction == "eps" else a * noise.numpy() - b * x.numpy()
    right = paddle.to_tensor(right, dtype="float32")
    losses = diffusion.p_losses(lambda x_t, t: right, x, t, noise)
    np.testing.assert_allclose(losses.numpy(), np.zeros(5), atol=1e-10)
    wrong = right + paddle.arange(5, dtype="float32").reshape([5, 1, 1, 1])
    losses = diffusion.p_losses(lambda x_t, t: wrong, x, t, noise)
    np.testing.assert_allclose(losses.numpy(), np.arange(5) ** 2, atol=1e-5)


def test_the_network_sees_the_noised_image(diffusion):
    x, noise = paddle.rand([4, 1, 4, 4]), paddle.randn([4, 1, 4, 4])
    steps_of_four, seen = paddle.to_tensor([30, 2, 11, T - 1]), []
    diffusion.p_losses(lambda *both: seen.append(both) or both[0], x, steps_of_four, noise)
    [(x_t, t)] = seen
    np.testing.assert_array_equal(t.numpy(), steps_of_four.numpy())
    np.testing.assert_array_equal(x_t.numpy(), diffusion.q_sample(x, t, noise).numpy())


def test_training_draws_every_step_from_the_first_to_the_last():
    diffusion = GaussianDiffusion(linear_beta_schedule(4))
    seen = []
    paddle.seed(0)
    diffusion.training_loss(lambda x, t: seen.append(t.numpy()) or x, paddle.zeros([500, 1, 1, 1]))
    counts = np.bincount(seen[0], minlength=4)
    assert len(counts) == 4
    assert abs(counts - 125).max() < 5 * np.sqrt(500 * 0.25 * 0.75)


# Sampling


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_p_mean_variance_is_the_posterior_at_the_estimate(prediction):
    diffusion = GaussianDiffusion(cosine_beta_schedule(T), prediction)
    x_t, x_start, t = paddle.randn([3, 1, 2, 2]), paddle.rand([3, 1, 2, 2]), steps(20, 3)
    noise = diffusion.predict_noise_from_start(x_t, t, x_start)
    output = noise if prediction == "eps" else diffusion.target(x_start, t, noise)
    mean, variance, log_variance, estimate = diffusion.p_mean_variance(lambda x, t: output, x_t, t)
    expected = diffusion.q_posterior_mean_variance(x_start, x_t, t)
    np.testing.assert_allclose(estimate.numpy(), x_start.numpy(), atol=1e-5)
    for got, want in zip((mean, variance, log_variance), expected, strict=True):
        np.testing.assert_allclose(got.numpy(), want.numpy(), atol=1e-5)


def test_the_estimate_is_clipped(diffusion):
    huge = paddle.full([1, 1, 2, 2], -1e6)
    estimate = diffusion.predict_start(lambda x, t: huge, paddle.zeros([1, 1, 2, 2]), steps(20))
    np.testing.assert_array_equal(estimate.numpy(), np.ones([1, 1, 2, 2]))


def test_p_sample_adds_noise_of_the_posterior_variance(diffusion):
    model = model_of(pixel(0.2), diffusion)
    mean = diffusion.p_sample(model, pixel(0.5), steps(20), noise=pixel(0.0)).item()
    up = diffusion.p_sample(model, pixel(0.5), steps(20), noise=pixel(1.0)).item()
    np.testing.assert_allclose((up - mean) ** 2, diffusion.posterior_variance[20], rtol=1e-3)


def test_p_sample_adds_no_noise_at_t_0(diffusion):
    model = model_of(pixel(0.2), diffusion)
    x = diffusion.p_sample(model, pixel(0.5), steps(0), noise=pixel(100.0)).item()
    np.testing.assert_allclose(x, 0.2, atol=1e-5)


def test_only_the_images_at_t_0_go_without_noise(diffusion):
    x_t, noise = paddle.zeros([2, 1, 1, 1]), paddle.ones([2, 1, 1, 1])
    model = model_of(paddle.zeros([2, 1, 1, 1]), diffusion)
    x = diffusion.p_sample(model, x_t, paddle.to_tensor([0, 5]), noise).numpy().ravel()
    assert x[0] == 0 and x[1] > 0


def test_ddim_with_eta_1_is_the_ddpm_step(diffusion):
    paddle.seed(0)
    x_t, noise, output = (paddle.randn([6, 1, 3, 3]) for _ in range(3))
    for t in (0, 1, 7, 30, T - 1):
        ddpm = diffusion.p_sample(lambda x, t: output, x_t, steps(t, 6), noise)
        ddim = diffusion.ddim_sample(
            lambda x, t: output, x_t, steps(t, 6), steps(t - 1, 6), eta=1.0, noise=noise
        )
        np.testing.assert_allclose(ddim.numpy(), ddpm.numpy(), atol=2e-4)


def test_ddim_is_exact_for_long_schedules_as_well():
    diffusion = GaussianDiffusion(cosine_beta_schedule(4000))
    zero, noise = pixel(0.0), pixel(1.0)
    model = model_of(zero, diffusion)
    for t in (1, 2, 50, 3999):
        x = diffusion.ddim_sample(model, zero, steps(t), steps(t - 1), 1.0, noise)
        np.testing.assert_allclose(x.item() ** 2, diffusion.posterior_variance[t], rtol=1e-5)


def test_ddim_jumps_along_the_exact_path(diffusion):
    # With a perfect network and eta = 0, x at t_prev is the same mixture of image and noise.
    x_0, noise = pixel(0.3), pixel(-1.2)
    for t, t_prev in [(T - 1, 20), (30, 4), (9, -1)]:
        x_t = diffusion.q_sample(x_0, steps(t), noise)
        model = model_of(x_0, diffusion)
        got = diffusion.ddim_sample(model, x_t, steps(t), steps(t_prev)).item()
        want = x_0 if t_prev < 0 else diffusion.q_sample(x_0, steps(t_prev), noise)
        np.testing.assert_allclose(got, want.item(), atol=1e-4)


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_a_strided_ddim_step_keeps_the_variance(diffusion, eta):
    n, t, t_prev = 100_000, 40, 12
    x_0 = paddle.zeros([n, 1, 1, 1])
    paddle.seed(0)
    x_t = diffusion.q_sample(x_0, steps(t, n))
    x = diffusion.ddim_sample(model_of(x_0, diffusion), x_t, steps(t, n), steps(t_prev, n), eta)
    expected = 1 - diffusion.alphas_cumprod[t_prev]
    assert abs(x.numpy().var() - expected) < 5 * expected * np.sqrt(2 / n)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_ddim_rederives_the_noise_from_the_clipped_image(diffusion, prediction):
    # The network says that the image is far above 1. What is clipped off must not stay in eps.
    diffusion = GaussianDiffusion(diffusion.betas, prediction)
    t, t_prev, x_t = 30, 10, 0.5
    wild = pixel(-50.0)
    got = diffusion.ddim_sample(lambda x, t: wild, pixel(x_t), steps(t), steps(t_prev)).item()
    a, a_prev = diffusion.alphas_cumprod[t], diffusion.alphas_cumprod[t_prev]
    eps = (x_t - np.sqrt(a)) / np.sqrt(1 - a)
    np.testing.assert_allclose(got, np.sqrt(a_prev) + np.sqrt(1 - a_prev) * eps, rtol=1e-4)


@pytest.mark.parametrize("count", [1, 2, 7, T])
def test_ddim_timesteps_run_from_the_last_to_the_first(diffusion, count):
    times = diffusion.ddim_timesteps(count)
    assert times[0] == T - 1 and len(times) == count
    assert (np.diff(times) < 0).all()
    if count > 1:
        assert times[-1] == 0
        even = (T - 1) * (1 - np.arange(count) / (count - 1))
        assert abs(times - even).max() <= 0.5


@pytest.mark.parametrize("count", [0, -1, T + 1])
def test_impossible_numbers_of_steps_are_refused(diffusion, count):
    with pytest.raises(ValueError, match=f"from 1 to {T}"):
        diffusion.ddim_timesteps(count)


def test_both_samplers_find_the_distribution_of_the_data():
    # Data: one pixel, +0.5 or -0.5 with probability 3/4 and 1/4. The best network is known.
    diffusion = GaussianDiffusion(cosine_beta_schedule(T))

    def model(x_t, t):
        a = paddle.to_tensor(diffusion.sqrt_alphas_cumprod[t.numpy()], dtype="float32")
        b = paddle.to_tensor(diffusion.sqrt_one_minus_alphas_cumprod[t.numpy()], dtype="float32")
        a, b = a.reshape([-1, 1, 1, 1]), b.reshape([-1, 1, 1, 1])
        odds = 3 * paddle.exp((a * x_t / b**2).clip(-40, 40))  # of +0.5 against -0.5 given x_t
        x_start = 0.5 * (odds - 1) / (odds + 1)
        return (x_t - a * x_start) / b

    n = 4000
    paddle.seed(0)
    for x in (
        diffusion.p_sample_loop(model, [n, 1, 1, 1]),
        diffusion.ddim_sample_loop(model, [n, 1, 1, 1], steps=25),
        diffusion.ddim_sample_loop(model, [n, 1, 1, 1], steps=25, eta=1.0),
    ):
        x = x.numpy().ravel()
        assert np.mean(np.abs(np.abs(x) - 0.5) < 0.05) > 0.97
        assert abs(np.mean(x > 0) - 0.75) < 0.05


def test_loops_yield_every_state_from_noise_to_image(diffusion):
    model = model_of(paddle.zeros([2, 1, 2, 2]), diffusion)
    assert len(list(diffusion.p_sample_progressive(model, [2, 1, 2, 2]))) == T + 1
    assert len(list(diffusion.ddim_sample_progressive(model, [2, 1, 2, 2], 5))) == 6


def test_sampling_keeps_no_gradients(diffusion):
    scale = paddle.create_parameter([1], "float32")

    def model(x, t):
        return x * scale

    assert diffusion.ddim_sample_loop(model, [1, 1, 2, 2], 3).stop_gradient
    assert diffusion.p_sample_loop(model, [1, 1, 2, 2]).stop_gradient


def test_a_tenth_of_the_labels_is_hidden():
    labels = paddle.to_tensor(np.arange(100_000) % 7)
    shown = hide_labels(labels, unknown=9, share=0.1).numpy()
    hidden = shown == 9
    np.testing.assert_array_equal(shown[~hidden], labels.numpy()[~hidden])
    assert abs(hidden.mean() - 0.1) < 5 * np.sqrt(0.1 * 0.9 / 100_000)


@pytest.mark.parametrize("scale", [0.0, 1.5])
def test_guidance_goes_on_past_the_prediction_for_the_label(scale):
    def network(x_t, t, labels=None):
        return x_t + (2.0 if labels is None else 5.0 + labels.astype("float32"))

    x_t = paddle.zeros([3])
    model = guided(network, paddle.to_tensor([0, 1, 2]), scale)
    with_label = np.array([5.0, 6, 7])
    expected = (1 + scale) * with_label - scale * 2
    np.testing.assert_allclose(model(x_t, paddle.zeros([3])).numpy(), expected)


def test_estimates_of_the_image_are_clipped_to_the_range_of_the_data():
    for prediction, clip in itertools.product(("eps", "v"), (1.0, 4.0)):
        diffusion = GaussianDiffusion(cosine_beta_schedule(100), prediction, clip=clip)
        x_t, t = paddle.full([2, 3], 50.0), paddle.to_tensor([10, 99])
        x_start = diffusion.predict_start(lambda x, t: -x, x_t, t)
        np.testing.assert_allclose(x_start.numpy(), clip)


# Codes: data without rows and columns


def test_codes_are_treated_as_images_of_one_pixel(diffusion):
    """[N, D] and [N, D, 1, 1] give the same numbers in every method."""
    paddle.seed(0)
    a, b, c = (paddle.randn([5, 3]) for _ in range(3))
    t, t_prev = paddle.to_tensor([0, 3, 20, 30, T - 1]), paddle.to_tensor([-1, 0, 4, 29, 7])

    def network(x, t):
        return 0.3 * x

    def every_result(shape):
        x, y, z = (v.reshape(shape) for v in (a, b, c))
        for process in (diffusion, GaussianDiffusion(diffusion.betas, "v")):
            yield process.q_sample(x, t, y)
            yield from process.q_posterior_mean_variance(x, y, t)
            yield process.predict_start_from_noise(x, t, y)
            yield process.predict_noise_from_start(x, t, y)
            yield process.predict_start_from_v(x, t, y)
            yield process.target(x, t, y)
            yield process.p_losses(network, x, t, y)
            yield process.p_sample(network, x, t, z)
            yield process.ddim_sample(network, x, t, t_prev, 0.5, z)

    for flat, square in zip(every_result([5, 3]), every_result([5, 3, 1, 1]), strict=True):
        assert flat.ndim in (1, 2)
        np.testing.assert_array_equal(flat.numpy().ravel(), square.numpy().ravel())


# Defaults


def test_by_default_the_network_predicts_noise_and_images_end_at_1():
    diffusion = GaussianDiffusion([0.1, 0.2])
    assert (diffusion.prediction, diffusion.clip, diffusion.timesteps) == ("eps", 1.0, 2)


def test_by_default_ddim_adds_no_noise():
    diffusion = GaussianDiffusion(cosine_beta_schedule(20))
    model, shape = model_of(paddle.zeros([2, 1, 2, 2]), diffusion), [2, 1, 2, 2]
    x, t, t_prev = paddle.ones(shape), steps(15, 2), steps(7, 2)
    once, again = (diffusion.ddim_sample(model, x, t, t_prev).numpy() for _ in range(2))
    np.testing.assert_array_equal(once, again)
    for sample in (
        diffusion.ddim_sample_loop,
        lambda *how: list(diffusion.ddim_sample_progressive(*how)),
    ):
        paddle.seed(0)
        paddle.randn(shape)  # all the noise that is needed is that at the start
        following = paddle.randn([1]).item()
        paddle.seed(0)
        sample(lambda x, t: 0.1 * x, shape, 5)
        assert paddle.randn([1]).item() == following


def test_by_default_each_image_has_noise_of_its_own(diffusion):
    x, t = paddle.zeros([50, 1, 2, 2]), steps(20, 50)
    for draw in (
        diffusion.q_sample(x, t),
        diffusion.p_sample(lambda x, t: x, x, t),
        diffusion.ddim_sample(lambda x, t: x, x, t, t - 5, eta=1.0),
    ):
        assert len(np.unique(draw.numpy())) > 195
        assert draw.dtype == x.dtype
    losses = diffusion.p_losses(lambda x, t: 0 * x, x, t)  # the squared noise itself
    assert len(np.unique(losses.numpy())) == 50


def test_by_default_all_noise_is_standard_normal(diffusion):
    n = 40_000
    x, t = paddle.zeros([n, 1, 1, 1]), steps(20, n)
    process = GaussianDiffusion(diffusion.betas, clip=1e9)
    still, level = paddle.zeros([n, 1, 1, 1]), process.sqrt_one_minus_alphas_cumprod[20]
    deviation = np.sqrt(process.posterior_variance[20])
    paddle.seed(0)
    draws = [
        process.q_sample(x, t) / level,
        process.p_sample(lambda x, t: still, x, t) / deviation,
        process.ddim_sample(lambda x, t: still, x, t, t - 1, eta=1.0) / deviation,
    ]
    process.p_losses(lambda x_t, t: draws.append(x_t / level) or x_t, x, t)
    for noise in draws:
        assert stats.kstest(noise.numpy().ravel(), "norm").pvalue > 1e-3


def test_a_tenth_is_hidden_by_default():
    labels = paddle.full([100_000], 3, dtype="int64")
    shown = hide_labels(labels, unknown=8).numpy()
    assert shown.dtype == np.int64
    assert abs((shown == 8).mean() - 0.1) < 5 * np.sqrt(0.1 * 0.9 / 100_000)


def test_without_guidance_the_network_is_asked_once_and_for_the_label():
    asked = []

    def network(x_t, t, labels=None):
        asked.append((t, labels))
        return x_t

    labels, t = paddle.to_tensor([2]), paddle.to_tensor([7])
    guided(network, labels)(paddle.zeros([1]), t)
    assert len(asked) == 1 and asked[0][0] is t and asked[0][1] is labels
    guided(network, labels, 1.0)(paddle.zeros([1]), t)
    assert [labels is None for _, labels in asked[1:]] == [False, True]
    assert all(step is t for step, _ in asked)


# What errors say


@pytest.mark.parametrize(
    ("betas", "words"),
    [
        ([], r"^betas must be a non-empty vector, got \(0,\)$"),
        ([[0.1]], r"^betas must be a non-empty vector, got \(1, 1\)$"),
        ([0.0, 0.1], r"^betas must lie between 0 and 1$"),
    ],
)
def test_what_is_wrong_with_betas_is_told(betas, words):
    with pytest.raises(ValueError, match=words):
        GaussianDiffusion(betas)


def test_what_is_wrong_with_a_prediction_or_a_step_is_told(diffusion):
    with pytest.raises(ValueError, match=r"""^prediction must be "eps" or "v", got 'x0'$"""):
        GaussianDiffusion([0.1], "x0")
    with pytest.raises(IndexError, match=rf"^t must be from 0 to {T - 1}, got 3 to {T}$"):
        diffusion.q_sample(paddle.zeros([2, 1]), paddle.to_tensor([3, T]))
    with pytest.raises(ValueError, match=rf"^steps must be whole, from 1 to {T}, got 0$"):
        diffusion.ddim_timesteps(0)


# The last details of the schedules and of the posterior


def test_short_linear_schedules_are_limited():
    assert linear_beta_schedule(10).max() == 0.999
    np.testing.assert_allclose(linear_beta_schedule(10)[0], 0.01, rtol=1e-12)


def test_the_floor_of_the_log_variance():
    one = GaussianDiffusion([0.3])
    assert one.posterior_variance[0] == 0
    np.testing.assert_allclose(one.posterior_log_variance_clipped, np.log(1e-20))
    two = GaussianDiffusion([0.3, 0.2])
    assert (two.posterior_log_variance_clipped == np.log(two.posterior_variance[1])).all()
    some = GaussianDiffusion([0.3, 0.2, 0.4])
    log = some.posterior_log_variance_clipped
    assert log[0] == log[1] == np.log(some.posterior_variance[1])
    assert log[2] == np.log(some.posterior_variance[2])


def test_numbers_are_computed_in_float64_and_meet_images_in_float32(diffusion):
    betas = np.array([0.1, 0.3], dtype="float32")
    np.testing.assert_array_equal(
        GaussianDiffusion(betas).alphas_cumprod, np.cumprod(1 - betas.astype("float64"))
    )
    scale = extract(diffusion.alphas_cumprod, paddle.to_tensor([0, 7]))
    assert scale.shape == [2, 1, 1, 1] and scale.dtype == paddle.float32
    assert diffusion.ddim_timesteps(3).dtype == np.int64


def test_both_ends_of_an_estimate_are_clipped(diffusion):
    x_t, t = paddle.zeros([1, 1, 1, 1]), steps(20)
    ends = [diffusion.predict_start(lambda x, t: pixel(v), x_t, t).item() for v in (1e6, -1e6)]
    assert ends == [-1, 1]


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_loops_pass_on_eta_and_give_each_image_its_step(eta):
    diffusion = GaussianDiffusion(cosine_beta_schedule(20))
    shape, asked = [3, 2, 4, 4], []

    def network(x, t):
        asked.append(t)
        return 0.1 * x

    def by_hand():
        x = paddle.randn(shape)
        times = diffusion.ddim_timesteps(4)
        for t, t_prev in zip(times, [*times[1:], -1], strict=True):
            x = diffusion.ddim_sample(lambda x, t: 0.1 * x, x, steps(t, 3), steps(t_prev, 3), eta)
        return x

    results = []
    for sample in (
        by_hand,
        lambda: diffusion.ddim_sample_loop(network, shape, 4, eta),
        lambda: [*diffusion.ddim_sample_progressive(network, shape, 4, eta)][-1],
    ):
        paddle.seed(3)
        results.append(sample().numpy())
    np.testing.assert_array_equal(results[0], results[1])
    np.testing.assert_array_equal(results[0], results[2])
    assert all(t.shape == [3] and t.dtype == paddle.int64 for t in asked)


@pytest.mark.parametrize("schedule", [linear_beta_schedule, cosine_beta_schedule])
def test_the_shortest_schedule_has_one_step(schedule):
    assert 0 < schedule(1).item() <= 0.999


def test_all_or_none_of_the_labels_can_be_hidden():
    labels = paddle.arange(1000) % 10  # the label 9 is the unknown one already
    assert (hide_labels(labels, 9, share=1) == 9).all()
    np.testing.assert_array_equal(hide_labels(labels, 9, share=0), labels)
