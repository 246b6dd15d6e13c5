import numpy as np
import paddle
import pytest

from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule
from genbook.solvers import (
    denoiser,
    dpm_solver_2m,
    euler,
    heun,
    karras_levels,
    nearest_levels,
    noise_levels,
    preconditioning,
    slope,
)

SOLVERS = {"euler": euler, "heun": heun, "dpm_solver_2m": dpm_solver_2m}
DIFFUSION = GaussianDiffusion(cosine_beta_schedule(100), "v")
S = 0.7  # the deviation of normal data


def normal(x, sigma):
    """The mean of x_0 given x, for x_0 of the deviation S."""
    return S**2 / (S**2 + sigma**2) * x


def test_noise_levels_say_how_strong_the_noise_is():
    levels = noise_levels(DIFFUSION)
    t = paddle.arange(100)
    image, zero = paddle.ones([100, 1, 1, 1]), paddle.zeros([100, 1, 1, 1])
    signal = DIFFUSION.q_sample(image, t, zero).numpy().ravel()
    noise = DIFFUSION.q_sample(zero, t, image).numpy().ravel()
    np.testing.assert_allclose(levels, noise / signal, rtol=1e-4)
    assert (np.diff(levels) > 0).all() and levels.dtype == np.float64


def test_a_denoiser_asks_the_network_at_the_step_of_the_level():
    levels, asked = noise_levels(DIFFUSION), []

    def network(x_t, t):
        asked.append((x_t.numpy(), t))
        return 0.1 * x_t

    x = paddle.to_tensor([[0.5, -2.0], [4.0, 0.0], [1.0, 1.0]])
    for step in (0, 60, 99):
        found = denoiser(network, DIFFUSION)(x, levels[step])
        x_t, t = asked[-1]
        a = DIFFUSION.alphas_cumprod[step]
        np.testing.assert_allclose(x_t, np.sqrt(a) * x.numpy(), rtol=1e-5)
        assert t.tolist() == [step] * 3 and t.dtype == paddle.int64
        v = 0.1 * x_t
        expected = np.clip(np.sqrt(a) * x_t - np.sqrt(1 - a) * v, -1, 1)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)


def test_between_two_levels_the_nearer_by_ratio_is_asked():
    levels, asked = noise_levels(DIFFUSION), []

    def network(x_t, t):
        asked.append(int(t[0]))
        return x_t

    ask = denoiser(network, DIFFUSION)
    middle = np.sqrt(levels[98] * levels[99])  # far below the mean of the two
    for sigma in (0.99 * middle, 1.01 * middle, 1e-9, 1e9):
        ask(paddle.ones([1, 2]), sigma)
    assert asked == [98, 99, 0, 99]


def test_a_denoiser_keeps_no_gradient():
    layer = paddle.nn.Linear(2, 2)
    found = denoiser(lambda x_t, t: layer(x_t), DIFFUSION)(paddle.ones([1, 2]), 1.0)
    assert found.stop_gradient


@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 2.0])
def test_preconditioning_makes_input_and_target_unit_and_the_rest_uncorrelated(sigma_data):
    rng = np.random.default_rng(0)
    x_0, noise = sigma_data * rng.choice([-1, 1], 200_000), rng.standard_normal(200_000)
    for sigma in (0.1, 1.0, 10.0):
        c_skip, c_out, c_in = preconditioning(sigma, sigma_data)
        x = x_0 + sigma * noise
        target = (x_0 - c_skip * x) / c_out
        assert np.isclose((c_in * x).std(), 1, atol=0.01)
        assert np.isclose(target.std(), 1, atol=0.01)
        assert abs((target * x).mean() / x.std()) < 0.02  # or a better skip would exist


def test_preconditioning_takes_arrays():
    sigma = np.array([0.1, 3.0])
    for whole, first in zip(preconditioning(sigma, 0.5), preconditioning(0.1, 0.5), strict=True):
        assert whole.shape == (2,) and whole[0] == first


def test_karras_levels_go_from_the_most_to_the_least_and_to_0():
    levels = karras_levels(5, 0.01, 80.0, rho=3)
    assert levels.shape == (6,) and levels[-1] == 0
    np.testing.assert_allclose(levels[[0, 4]], [80.0, 0.01])
    roots = np.cbrt(levels[:-1])
    np.testing.assert_allclose(np.diff(roots), np.diff(roots)[0])


def test_karras_levels_have_the_papers_exponent():
    np.testing.assert_allclose(karras_levels(3, 1.0, 2.0**7)[1], 1.5**7)
    np.testing.assert_allclose(karras_levels(2.0, 1.0, 2.0), [2.0, 1.0, 0.0])


@pytest.mark.parametrize(
    "bad", [(5, 0.0, 1.0), (5, 1.0, 1.0), (1, 0.1, 1.0), (2.5, 0.1, 1.0), (5, 0.1, 1.0, 0.0)]
)
def test_impossible_levels_are_refused(bad):
    with pytest.raises(ValueError, match="levels|steps"):
        karras_levels(*bad)


def test_the_nearest_levels_are_nearest_by_ratio_and_different():
    levels = np.array([0.1, 1.0, 10.0])
    found = nearest_levels([50.0, 3.3, 3.0, 0.9, 0.02, 0.0], levels)
    assert found.tolist() == [10.0, 1.0, 0.1, 0.0]
    assert nearest_levels([3.1, 0.2], levels).tolist() == [1.0, 0.1]


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_a_denoiser_that_never_changes_its_mind_is_solved_in_one_step(solver):
    x, image = np.array([3.0, -1.0]), np.array([0.2, 0.4])
    for grid in ([5.0, 1.0], [5.0, 3.0, 2.0, 1.0]):
        exact = image + (x - image) / 5.0
        np.testing.assert_allclose(solver(lambda x, s: image, x, grid), exact, rtol=1e-12)
    np.testing.assert_allclose(solver(lambda x, s: image, x, [5.0, 1.0, 0.0]), image, atol=1e-12)


@pytest.mark.parametrize(
    ("solver", "order", "bound"), [(euler, 1, 2e-2), (heun, 2, 2e-3), (dpm_solver_2m, 2, 2e-3)]
)
@pytest.mark.parametrize("uneven", [0.0, 0.3])
def test_orders_on_normal_data(solver, order, bound, uneven):
    exact = np.sqrt((S**2 + 0.05**2) / (S**2 + 20.0**2))

    def error(steps):
        u = np.linspace(0, 1, steps + 1)
        u += uneven * u * (1 - u)  # steps of a length that changes slowly
        grid = 20.0 * (0.05 / 20.0) ** u
        return abs(solver(normal, np.array([1.0]), grid)[0] / exact - 1)

    assert abs(np.log2(error(200) / error(400)) - order) < 0.1
    assert error(200) < bound


@pytest.mark.parametrize("ratio", [0.4, 2.5])
def test_the_memory_of_2m_knows_the_lengths_of_both_steps(ratio):
    """Estimates that are linear in log sigma are extrapolated exactly to the middle."""
    grid = np.exp([1.0, 0.0, -ratio])
    x, estimate = np.array([0.3]), lambda x, s: np.array([2 - 3 * np.log(s)])
    before = euler(estimate, x, grid[:2])
    middle = 2 + 3 * ratio / 2
    expected = np.exp(-ratio) * before + (1 - np.exp(-ratio)) * middle
    np.testing.assert_allclose(dpm_solver_2m(estimate, x, grid), expected, rtol=1e-12)


@pytest.mark.parametrize(("solver", "most"), [(euler, 4), (heun, 7), (dpm_solver_2m, 4)])
def test_how_often_the_denoiser_is_asked(solver, most):
    asked = []

    def denoise(x, sigma):
        asked.append(sigma)
        return 0 * x

    solver(denoise, np.ones(1), [8.0, 4.0, 2.0, 1.0, 0.0])
    assert len(asked) == most and min(asked) > 0


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_the_last_step_to_0_ends_at_the_estimate(solver):
    grid = [8.0, 2.0, 0.5]
    before = solver(normal, np.array([3.0]), grid)
    np.testing.assert_allclose(solver(normal, np.array([3.0]), [*grid, 0.0]), normal(before, 0.5))


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
def test_tensors_and_arrays_have_the_same_solution(solver):
    x, grid = np.array([[3.0, -1.0]]), np.geomspace(5.0, 0.1, 6)
    found = solver(normal, paddle.to_tensor(x, dtype="float32"), grid)
    assert found.dtype == paddle.float32
    np.testing.assert_allclose(found.numpy(), solver(normal, x, grid), rtol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS.values(), ids=SOLVERS)
@pytest.mark.parametrize(
    "bad", [[1.0], [1.0, 2.0], [1.0, 1.0], [1.0, 0.0, -1.0], [[2.0, 1.0]], [2.0, np.nan]]
)
def test_levels_that_do_not_fall_are_refused(solver, bad):
    with pytest.raises(ValueError, match="levels"):
        solver(normal, np.ones(1), bad)


def test_euler_is_ddim():
    network = lambda x_t, t: paddle.tanh(x_t) - 0.2  # noqa: E731
    paddle.seed(0)
    ddim = DIFFUSION.ddim_sample_loop(network, [3, 1, 4, 4], steps=7)
    paddle.seed(0)
    noise = paddle.randn([3, 1, 4, 4])
    grid = np.append(noise_levels(DIFFUSION)[DIFFUSION.ddim_timesteps(7)], 0.0)
    x = noise / float(DIFFUSION.sqrt_alphas_cumprod[-1])
    found = euler(denoiser(network, DIFFUSION), x, grid)
    np.testing.assert_allclose(found.numpy(), ddim.numpy(), atol=1e-4)


def test_the_slope_leads_to_the_estimate():
    x = np.array([3.0])
    assert np.isclose(x - 2.0 * slope(normal, x, 2.0), normal(x, 2.0))


@pytest.mark.parametrize("sigma", [0.0, -1.0, np.nan])
def test_what_is_no_noise_level_is_refused(sigma):
    with pytest.raises(ValueError, match="above 0"):
        denoiser(lambda x_t, t: x_t, DIFFUSION)(paddle.ones([1, 2]), sigma)
    with pytest.raises(ValueError, match="above 0"):
        preconditioning(np.array([1.0, sigma]), 1.0)
    with pytest.raises(ValueError, match="above 0"):
        preconditioning(1.0, sigma)
    with pytest.raises(ValueError, match="above 0"):
        nearest_levels([2.0, 1.0], [1.0, sigma])
