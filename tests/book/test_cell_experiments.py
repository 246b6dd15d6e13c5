"""Functions of chapters that train, draw and judge, with stand-ins for what takes long."""

import copy
import inspect
import re
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from cells import functions
from scipy import stats
from scipy.integrate import quad
from scipy.spatial.distance import cdist

from genbook.data import Dataset
from genbook.diffusion import GaussianDiffusion
from genbook.evaluation.metrics import frechet_distance

BETAS = np.array([0.1, 0.2, 0.3, 0.4])


def tensor(numbers):
    return paddle.to_tensor(np.asarray(numbers, dtype="float32"))


def put(function, **names):
    """Let a function of a page find these names in place of what the page imports."""
    inspect.unwrap(function).__globals__.update(names)


def a_set(n=12, classes=3, size=2):
    images = np.random.default_rng(0).random((n, 1, size, size), dtype="float32")
    return Dataset("digits", "train", images, np.arange(n) % classes, tuple("abc"[:classes]))


# Scores


class FirstPixel:
    """A judge of two classes that goes by the first pixel; its features are all pixels."""

    def features(self, images):
        return images.reshape(len(images), -1)

    def probabilities(self, images):
        first = self.features(images)[:, :1]
        return np.hstack([first, 1 - first])


DIGITS = a_set(20)
REAL = np.random.default_rng(1).random((9, 4))
NEAR = 0.2


def judged():
    """Twelve images, a class for each that says how legible it is, and their scores by hand."""
    images = np.random.default_rng(2).random((12, 1, 2, 2), dtype="float32")
    images[6:9] = DIGITS.images[:3] + 0.01  # copies
    images[:, 0, 0, 0] = [0.95, 0.99, 0.5, 0.92, 0.91, 0.3, 0.2, 0.97, 0.6, 0.05, 0.98, 0.93]
    p = images[:, 0, 0, 0]
    rows = images.reshape(12, -1)
    legible = (p >= 0.9) | (p <= 0.1)
    expected = {
        "legible": legible.mean(),
        "entropy": stats.entropy(np.bincount(p < 0.5), base=2),
        "Fréchet": frechet_distance(rows, REAL),
        "copies": (cdist(rows, DIGITS.images.reshape(20, -1)).min(axis=1) < NEAR).mean(),
    }
    assert 0 < expected["copies"] < 1
    return images, legible.astype(int), expected


def scoring(page, **names):
    return functions(
        page, **{"digits": DIGITS, "judge": FirstPixel(), "real": REAL, "near": NEAR, **names}
    )


def test_scores_of_the_comparison():
    images, _, expected = judged()
    found = scoring("comparison").scores(images)
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert np.isclose(found[key], value), key


def test_table_scores_each_set_and_knows_which_classes_were_chosen(capsys):
    images, classes, expected = judged()
    code = scoring("judging", chosen={"chosen": classes})
    found = code.table({"drawn": images, "chosen": images})
    for scores in found.values():
        for key, value in expected.items():
            assert np.isclose(scores[key], value), key
    share = expected["legible"]
    assert np.isclose(found["drawn"]["error"], np.sqrt(share * (1 - share) / 12), rtol=0.2)
    assert found["chosen"]["error"] < 1e-9  # all of one class are legible, or none
    title, line, _ = capsys.readouterr().out.splitlines()
    assert title.split() == ["images", "legible", "entropy", "Fréchet", "copies"]
    numbers = re.findall(r"[\d.]+", line)
    shown = [12, share, found["drawn"]["error"], *(expected[k] for k in title.split()[2:])]
    assert np.allclose([float(x) for x in numbers], shown, atol=0.06)


def test_score_of_improving_knows_which_classes_were_chosen():
    images, classes, expected = judged()
    code = scoring("improving")
    put(code.score, Score=lambda *parts: parts)
    share = expected["legible"]
    *scores, error = (code.score(images)[i] for i in (0, 2, 3, 4, 1))
    assert np.allclose(scores, list(expected.values()))
    assert np.isclose(error, np.sqrt(share * (1 - share) / 12), rtol=0.2)
    assert code.score(images, classes)[1] < 1e-9


def test_measure_keeps_images_between_0_and_1_and_their_scores():
    images, classes, expected = judged()
    rows, scores = {}, {}
    names = {"labels": classes, "n": 1, "diffusion": None, "network": None}
    code = scoring("pitfalls", **names, rows=rows, scores=scores)
    put(code.measure, Score=lambda *parts: parts)
    # what is beyond 0 and 1 is cut off
    code.measure("chosen", np.where(images > 0.85, images + 3, images))
    assert np.allclose(rows["chosen"], np.where(images > 0.85, 1, images))
    code.measure("beside", 2 * images - 1)
    assert rows["beside"].min() == 0
    code.measure("plain", images, None)
    legible, error, frechet, mean = scores["plain"]
    share = expected["legible"]
    assert np.allclose([legible, frechet, mean], [share, expected["Fréchet"], images.mean()])
    assert np.isclose(error, np.sqrt(share * (1 - share) / 12), rtol=0.2)
    code.measure("chosen", images)
    assert scores["chosen"][1] < 1e-9


def test_scores_of_the_way_back_are_distance_and_legibility():
    images, _, expected = judged()
    found = scoring("diffusion-reverse").scores(images)
    assert np.allclose(found, [expected["Fréchet"], expected["legible"]])


def test_recorded_keeps_each_distance():
    drawn = []
    code = scoring("judging", drawn=drawn)
    sets = np.random.default_rng(3).random((3, 8, 4))
    found = [code.recorded(features) for features in sets]
    assert np.allclose(found, [frechet_distance(features, REAL) for features in sets])
    assert drawn == found


# Drawing


class Sampler:
    """A process whose samples are three times the noise that they start from."""

    def __init__(self):
        self.calls = []

    def ddim_sample_loop(self, model, shape, steps, eta=0.0):
        noise = paddle.randn(shape)
        self.calls.append((model, shape, steps, eta, noise.numpy()))
        return 3 * noise


def test_samples_of_guidance_are_images_and_always_from_the_same_noise():
    process = Sampler()
    code = functions("guidance", n=4, diffusion=process, digits=a_set())
    found = [code.sample("one"), code.sample("other", n=4)]
    assert [call[:4] for call in process.calls] == [
        (model, [4, 1, 2, 2], 20, 0.0) for model in ("one", "other")
    ]
    expected = np.clip((3 * process.calls[0][4] + 1) / 2, 0, 1)
    assert np.allclose(found, [expected, expected])


def test_samples_of_pitfalls_are_always_from_the_same_noise():
    process = Sampler()
    names = {"labels": None, "network": "one", "digits": a_set()}
    code = functions("pitfalls", n=4, diffusion=process, **names)
    found = [code.sample().numpy(), code.sample(process, "other", steps=5).numpy()]
    assert [call[:3] for call in process.calls] == [
        ("one", [4, 1, 2, 2], 20),
        ("other", [4, 1, 2, 2], 5),
    ]
    assert np.allclose(found, 3 * process.calls[0][4])


def test_drawn_follows_seed_steps_and_eta():
    process = Sampler()
    code = functions("diffusion-reverse", diffusion=process, model="one", shape=[4, 1, 2, 2])
    found = [code.drawn(seed, 7, 0.5) for seed in (1, 2, 1)]
    assert all(call[:4] == ("one", [4, 1, 2, 2], 7, 0.5) for call in process.calls)
    assert np.allclose(found, [np.clip((3 * c[4] + 1) / 2, 0, 1) for c in process.calls])
    assert (found[0] == found[2]).all() and (found[0] != found[1]).any()


def test_samples_of_improving_are_always_the_same():
    code = functions("improving", digits=None)
    model = SimpleNamespace(latent_dim=2, classes=0, decode=lambda z, labels: z)
    first, second = code.sample(model, n=5000), code.sample(model, n=5000)
    assert (first == second).all()
    assert stats.kstest(first.ravel(), "norm").pvalue > 1e-3


def test_decoded_are_the_images_of_codes():
    model = SimpleNamespace(decode=lambda z: 2 * z)
    found = functions("latent-space").decoded(model, [[1, 2], [3, 4]])
    assert found.dtype == np.float32 and found.tolist() == [[2, 4], [6, 8]]


@pytest.mark.parametrize(
    ("page", "function"), [("latent-space", "decoded_maps"), ("autoencoder", "decode")]
)
def test_rows_of_codes_are_decoded_as_maps(page, function):
    maps = np.random.default_rng(0).random((5, 3, 2, 4), dtype="float32")
    model = SimpleNamespace(decode=lambda z: z + 1)
    code = functions(page, maps=maps, convolutional=model, model=model)
    found = getattr(code, function)(maps.reshape(5, 24)[:2])
    assert np.allclose(found.numpy(), maps[:2] + 1)


# What the chapter on the way back measures


def test_as_many_are_training_images_of_the_labels_that_were_drawn():
    data = a_set(30)
    labels = paddle.arange(9) % 3
    as_many = functions("diffusion-reverse", digits=data, labels=labels).as_many
    seen = []
    for seed in range(40):
        images = as_many(seed)
        rows = cdist(images.reshape(9, -1), data.images.reshape(30, -1)).argmin(axis=1)
        assert (images == data.images[rows]).all() and len(set(rows)) == 9
        assert (data.labels[rows] == labels.numpy()).all()
        seen.append(rows)
    assert set(np.ravel(seen)) == set(range(30))
    assert (as_many(0) == as_many(0)).all()


def test_variety_is_among_the_samples_of_a_class():
    x = np.random.default_rng(0).standard_normal((40, 1, 16, 16)) * np.linspace(1, 2, 256).reshape(
        16, 16
    )
    expected = np.mean([x[np.arange(40) % 10 == k].std(axis=0) for k in range(10)])
    assert np.isclose(functions("diffusion-reverse").variety(tensor(x)), expected)


def test_bumps_are_the_modes_of_a_density():
    x_s = np.linspace(-4, 4, 801)
    code = functions("diffusion-reverse", x_s=x_s)
    density = stats.norm.pdf(x_s, -1.5, 0.4) + stats.norm.pdf(x_s, 1, 0.5)
    assert np.allclose(code.bumps(density), [-1.5, 1], atol=0.02)
    assert np.allclose(code.bumps(stats.norm.pdf(x_s, 0.5)), [0.5])


def test_compared_with_normal_is_the_total_variation():
    x_s = np.linspace(-6, 6, 2401)
    code = functions("diffusion-reverse", x_s=x_s)
    assert np.allclose(code.compared_with_normal(stats.norm.pdf(x_s, 0.5, 0.7)), [0.7, 0])

    def two(x):
        return (stats.norm.pdf(x, -1, 0.3) + stats.norm.pdf(x, 1, 0.3)) / 2

    deviation = np.sqrt(1 + 0.09)
    apart = quad(lambda x: abs(two(x) - stats.norm.pdf(x, 0, deviation)) / 2, -6, 6, limit=200)[0]
    assert np.allclose(code.compared_with_normal(two(x_s)), [deviation, apart], atol=1e-4)


def test_grey_share_and_correlation():
    code = functions("diffusion-reverse")
    assert code.grey_share(tensor([-1, -0.5, 0.3, 0.9, -0.7])) == 0.4
    x, y = np.random.default_rng(0).standard_normal((2, 3, 4))
    expected = stats.pearsonr(x.ravel(), y.ravel()).statistic
    assert np.isclose(code.correlation(tensor(x), tensor(y)), expected)


# The bound of a network


def test_errors_are_those_of_v_at_the_steps_that_were_drawn():
    a_bar, asked, noise = np.cumprod(1 - BETAS), [], []

    class Process:
        """The estimate is off by half of 1 + t in each pixel."""

        def q_sample(self, x, t):
            noise.append(paddle.randn([2]).numpy())
            return x

        def predict_start(self, model, x, t):
            asked.append((x.numpy(), model(x, t).numpy()))
            return x - 0.5 * (1 + t.astype("float32")).reshape([-1, 1, 1, 1])

    images, labels = np.full((500, 1, 2, 2), 0.5), np.arange(500) % 3
    weight = np.array([0.0, 1.0, 3.0, 0.0])
    code = functions(
        "diffusion-bound",
        weight=weight,
        diffusion=Process(),
        a_bar=a_bar,
        unet=lambda x, t, labels: 10 * t + labels,
    )
    times, errors = code.squared_errors_of_v(images, labels, draws=6)
    assert times.shape == errors.shape == (6, 500)
    assert np.allclose(errors, 4 * 0.25 * (1 + times) ** 2 / (1 - a_bar[times]))
    assert np.allclose(np.bincount(times.ravel(), minlength=4) / 3000, weight / 4, atol=0.04)
    for (x, output), t in zip(asked[:6], times, strict=True):
        assert (output == 10 * t + labels).all()
        assert x.min() >= 0 and x.max() <= 1 / 128  # the part of the level 128
    assert len(np.unique([x for x, _ in asked])) > 5000  # each time somewhere else in it
    assert len(np.unique(noise)) == 12
    for seed in (0, 1):  # the same seed draws the same steps, images and noise
        paddle.seed(7)
        again, _ = code.squared_errors_of_v(images, labels, draws=6, seed=seed)
        for first, then in ((noise[:6], noise[-6:]), (times, again), (asked[0][0], asked[-6][0])):
            assert np.array_equal(first, then) == (seed == 0)
    again, _ = code.squared_errors_of_v(images, labels, 6, chances=weight[::-1], seed=1)
    assert np.allclose(np.bincount(again.ravel(), minlength=4) / 3000, weight[::-1] / 4, atol=0.04)


@pytest.mark.parametrize("like", ["posterior", "beta"])
def test_bits_of_the_best_network_are_the_bound_of_a_normal_pixel(like):
    process, c = GaussianDiffusion(BETAS), 0.7
    a_bar = process.alphas_cumprod
    snr = a_bar / (1 - a_bar)
    weight = np.append(0.5, 0.5 * BETAS[1:] * snr[:-1])
    posterior = process.posterior_variance[1:]
    variances = posterior if like == "posterior" else BETAS[1:]
    code = functions("diffusion-bound", weight=weight, a_bar=a_bar, D=4)
    bound, _ = code.bound_and_evidence(process, c, variances)
    # of four pixels that are as far from 0 as they are on average
    images = ((1 + c * np.array([1, -1, -1, 1])) / 2).reshape(1, 1, 2, 2)
    error = 4 * c**2 / (1 + c**2 * snr) / (1 - a_bar)  # of v, in mean
    times = np.repeat(np.arange(4), np.round(1e6 * weight / weight.sum()).astype(int))[:, None]
    quotient = np.append(1.0, posterior / variances)
    found = code.bits_per_dimension(images, times, error[times], quotient)
    assert np.allclose(found, bound / np.log(2) + np.log2(128), atol=1e-4)


# Training


def test_reading_loss_is_of_noised_images_told_their_level():
    seen, read = [], []

    def q_sample(x, t):
        seen.append((x + 5, t))
        return x + 5

    def reader(rows):
        read.append(rows.numpy())
        return tensor(np.tile([1.0, 2.0, 4.0], (len(rows), 1)))

    level = np.array([0.9, 0.7, 0.5, 0.3])
    process = SimpleNamespace(timesteps=4, q_sample=q_sample, sqrt_alphas_cumprod=level)
    code = functions("guidance", n=1, diffusion=process, reader=reader)
    x, y = paddle.rand([1000, 1, 2, 2]), paddle.to_tensor(np.arange(1000) % 2)
    loss = code.reading_loss(None, x, y).item()
    assert np.isclose(loss, np.log(np.exp([1, 2, 4]).sum()) - 1.5)
    [(x_t, t)], [rows] = seen, read
    expected = np.hstack([x_t.numpy().reshape(1000, 4), level[t.numpy()][:, None]])
    assert np.allclose(rows, expected)
    assert np.allclose(np.bincount(t.numpy(), minlength=4), 250, atol=75)


class Caught:
    """Stands for `fit`, and keeps what it was called with."""

    def __call__(self, model, loss, *data, **settings):
        self.model, self.loss, self.data, self.settings = model, loss, data, settings
        return {"loss": np.zeros(1)}


def weights(model):
    return np.concatenate([p.numpy().ravel() for p in model.parameters()])


def test_train_of_improving_passes_on_its_choices():
    code, fit, data = functions("improving", digits=a_set(), classes=3), Caught(), a_set(6)
    put(code.train, fit=fit)
    model, _ = code.train()
    assert model.classes == 0 and model.to_mu.weight.shape == [400, 20]
    [images] = fit.data
    assert (images == a_set().images).all() and fit.settings["ema"] is None
    starts = []
    for seed in (5, 5, 6):
        paddle.seed(len(starts))
        how = {"hidden": (7, 5), "latent_dim": 3, "lr": 0.5, "ema": 0.9, "seed": seed}
        model, _ = code.train("a loss", **how, data=data, labels=True)
        starts.append(weights(model))
    assert fit.loss == "a loss" and fit.model is model and model.classes == 3
    assert fit.data[0] is data.images and fit.data[1] is data.labels
    assert [fit.settings[key] for key in ("lr", "ema", "seed")] == [0.5, 0.9, 6]
    assert model.to_mu.weight.shape == [5, 3]
    assert (starts[0] == starts[1]).all() and (starts[0] != starts[2]).any()


def test_train_with_weighs_the_divergence_of_black_and_white_images():
    code, fit = functions("vae", digits=a_set()), Caught()
    put(code.train_with, fit=fit)
    starts = [weights(code.train_with(beta)) for beta in (4.0, 0.5)]
    assert (starts[0] == starts[1]).all()
    [images] = fit.data
    assert images.tolist() == (a_set().images >= 0.5).astype(float).tolist()
    losses = fit.loss(fit.model, tensor(images))
    expected = losses["reconstruction"] + 0.5 * losses["kl"]
    assert np.isclose(losses["loss"].item(), expected.item())


def test_small_vae_starts_from_one_seed_and_passes_on_its_choices():
    code, fit, images = functions("likelihood"), Caught(), a_set().images
    put(code.small_vae, fit=fit)
    starts = []
    for seed in (0, 1):
        paddle.seed(seed)  # what was drawn before does not matter
        model, _ = code.small_vae("a loss", images, steps=7)
        starts.append(weights(model))
    assert (starts[0] == starts[1]).all() and model.to_mu.weight.shape == [400, 20]
    assert fit.loss == "a loss" and fit.data[0] is images and fit.settings["steps"] == 7


def test_velocity_is_a_network_of_place_and_time():
    code = functions("score-and-flow")
    model = code.Velocity(width=8)
    names = [type(layer).__name__ for layer in model.body]
    assert names == ["Linear", "ReLU"] * 3 + ["Linear"]
    x, tau = paddle.rand([4, 2]), paddle.rand([4, 1])
    found = model(x, tau).numpy()
    assert np.allclose(found, model.body(paddle.concat([x, tau], axis=1)).numpy())
    assert (found != model(x, tau + 0.5).numpy()).any()


def test_a_training_is_ended_halfway_after_its_steps():
    code = comparison(steps=3, taken=0)
    put(code.loss_until_halfway, vae_loss=lambda model, x, pixel_loss: pixel_loss(x, 0 * x).sum())
    for _ in range(3):
        loss = code.loss_until_halfway(None, tensor([[1.0, 2.0]]))
        assert loss.item() == 2.5  # half the squared error
    with pytest.raises(code.Halfway):
        code.loss_until_halfway(None, tensor([[1.0, 2.0]]))


class TinyNet(paddle.nn.Layer):
    """Two weights; keeps its weights and the labels at each call."""

    def __init__(self):
        super().__init__()
        self.linear = paddle.nn.Linear(1, 1)

    def forward(self, x, t, labels=None):
        CALLS.append((self.linear.weight.item(), None if labels is None else labels.numpy()))
        return self.linear(x)


CALLS = []


def test_train_on_hides_a_tenth_of_the_labels_and_averages_the_weights():
    CALLS.clear()
    unet, data = TinyNet(), a_set(60)
    before = copy.deepcopy(unet.state_dict())
    code = functions(
        "pitfalls",
        unet=unet,
        digits=data,
        labels=None,
        network=None,
        n=1,
        classes=3,
        diffusion=GaussianDiffusion(BETAS, "v"),
    )
    images = data.labels.reshape(60, 1, 1, 1).astype("float32")
    net, smooth = code.train_on(images, steps=60, decay=0.6)
    assert not net.linear.weight.grad.any()  # none is left over for a next step
    for name, value in unet.state_dict().items():
        assert (value == before[name]).all()  # a copy was trained
    path = [weight for weight, _ in CALLS] + [net.linear.weight.item()]
    assert len(path) == 61 and len(set(path)) == 61
    average = path[0]
    for n, weight in enumerate(path[1:], 1):
        decay = min(0.6, (1 + n) / (10 + n))
        average = decay * average + (1 - decay) * weight
    assert np.isclose(smooth.linear.weight.item(), average, rtol=1e-4)
    labels = np.concatenate([labels for _, labels in CALLS])
    paddle.seed(1)  # what was drawn before does not matter
    again, _ = code.train_on(images, steps=60, decay=0.6)
    assert again.linear.weight.item() == net.linear.weight.item()
    assert len(labels) == 60 * 32
    assert abs((labels == 3).mean() - 0.1) < 5 * np.sqrt(0.09 / len(labels))
    assert set(labels) == {0, 1, 2, 3}


# The models that the comparison trains


class Plain(paddle.nn.Layer):
    """A VAE whose images are its codes, turned into rows; keeps the labels that it is told."""

    latent_dim = 2

    def __init__(self):
        super().__init__()
        self.told = []

    def encode(self, x, labels=None):
        self.told.append(labels)
        return x.flatten(1)[:, :2], paddle.zeros([len(x), 2])

    def decode(self, z, labels=None):
        self.told.append(labels)
        return z

    def forward(self, x):
        return x + 100


HISTORY = {"seconds": np.array([1.0, 2.5])}


def comparison(**names):
    """The chapter's functions; more, digits and test differ."""
    names = {"digits": a_set(12), "more": a_set(24), "test": a_set(9), "STEP": STEPS, **names}
    return functions("comparison", **names, shape=[1, 2, 2])


STEPS = dict.fromkeys(
    ["autoencoder", "baseline VAE", "improved VAE", "diffusion", "first stage", "second stage"], 10
)


def caught(calls, *result):
    def train(*args, **how):
        calls.append((args, how))
        return result

    return train


def test_the_baseline_draws_codes_of_the_prior_and_reconstructs_from_the_mean():
    code, calls, model = comparison(), [], Plain()
    put(code.baseline_vae, train_baseline_vae=caught(calls, model, HISTORY))
    sample, reconstruct, networks, seconds = code.baseline_vae(code.steps_in(2), 5)
    [((data, steps, seed), _)] = calls
    assert (data.images.shape[0], steps, seed) == (12, 200, 5)
    assert networks == [model] and seconds == 2.5
    assert stats.kstest(sample(np.zeros(4000)).numpy().ravel(), "norm").pvalue > 1e-3
    x = paddle.rand([3, 1, 2, 2])
    assert (reconstruct(x) == x.flatten(1)[:, :2]).all()


def test_the_improved_vae_is_told_the_labels():
    code, calls, model = comparison(), [], Plain()
    put(code.improved_vae, train_improved_vae=caught(calls, model, HISTORY))
    sample, reconstruct, networks, seconds = code.improved_vae(code.steps_in(2), 5)
    [((data,), how)] = calls
    assert len(data) == 24 and how == {"steps": 200, "seed": 5}
    assert networks == [model] and seconds == 2.5
    labels = paddle.arange(4000) % 3
    assert stats.kstest(sample(labels).numpy().ravel(), "norm").pvalue > 1e-3
    assert model.told.pop() is labels
    x = paddle.rand([9, 1, 2, 2])
    assert (reconstruct(x) == x.flatten(1)[:, :2]).all()
    assert [told.tolist() for told in model.told] == [[0, 1, 2] * 3] * 2


def test_the_autoencoder_draws_codes_like_those_of_the_training_images():
    code, calls, data = comparison(), [], a_set(12)

    class Model(Plain):
        def encode(self, x):
            return 5 * x

    put(code.autoencoder, train_autoencoder=caught(calls, model := Model(), HISTORY))
    sample, reconstruct, networks, seconds = code.autoencoder(code.steps_in(2), 5)
    [((found, steps, seed), _)] = calls
    assert (len(found), steps, seed) == (12, 200, 5)
    assert reconstruct is model and networks == [model] and seconds == 2.5
    drawn = sample(np.zeros(4000)).numpy()
    assert np.allclose(drawn.mean(axis=0), 5 * data.images.mean(axis=0), atol=0.2)
    assert np.allclose(drawn.std(axis=0), 5 * data.images.std(axis=0), atol=0.2)


class Guided:
    """A process: its samples are what its model says of noise; keeps how it was asked."""

    def ddim_sample_loop(self, model, shape, steps):
        self.asked = shape, steps
        return model(paddle.ones(shape), paddle.zeros([shape[0]], "int64"))


def told_network(x, t, labels=None):
    """With guidance of one half: (1 + 0.5) y - 0.5 * 9 for the label y."""
    return x * (
        9.0 if labels is None else labels.astype("float32").reshape([-1] + [1] * (x.ndim - 1))
    )


def test_diffusion_draws_images_with_guidance_of_one_half():
    code, calls, process = comparison(pixels=(process := Guided())), [], process
    put(code.diffusion, train_diffusion=caught(calls, told_network, HISTORY))
    sample, reconstruct, networks, seconds = code.diffusion(code.steps_in(2), 5)
    [((data, trained, steps, seed), _)] = calls
    assert (len(data), trained, steps, seed) == (12, process, 200, 5)
    assert reconstruct is None and networks == [told_network] and seconds == 2.5
    found = sample(paddle.to_tensor([2, 3, 4])).numpy()  # which become -1.5, 0 and 1.5
    assert process.asked == ([3, 1, 2, 2], 20)
    assert np.allclose(found[:, 0, 0, 0], [0, 0.5, 1]) and np.ptp(found, axis=(1, 2, 3)).max() == 0


def test_latent_diffusion_shares_the_time_and_scales_its_codes_back():
    process, vae, calls = Guided(), Plain(), []
    code = comparison(latents=process)
    scale = SimpleNamespace(to_code=lambda u: 10 * u)
    put(
        code.latent_diffusion,
        train_first_stage=caught(calls, vae, HISTORY),
        train_latent_diffusion=caught(calls, told_network, scale, HISTORY),
    )
    sample, reconstruct, networks, seconds = code.latent_diffusion(code.steps_in(2), 5)
    (first, _), (second, _) = calls
    assert (len(first[0]), *first[1:]) == (24, 100, 5)
    assert (len(second[0]), *second[1:]) == (24, vae, process, 100, 5)
    assert networks == [vae, told_network] and seconds == 5.0
    found = sample(paddle.to_tensor([2, 3, 4])).numpy()
    assert process.asked == ([3, 2], 20)
    assert np.allclose(found, [[-15, -15], [0, 0], [15, 15]])
    x = paddle.rand([3, 1, 2, 2])
    assert (reconstruct(x) == x.flatten(1)[:, :2]).all()


def test_examine_draws_from_the_seed_and_takes_the_root_of_the_mean_square():
    images = []

    def sample(labels):
        images.append(paddle.rand([len(labels), 1, 2, 2]))
        return images[-1]

    def train(seconds, seed):
        paddle.seed(seed + 77)
        return (
            sample,
            lambda x: x + 0.3 * (-1) ** paddle.arange(2),
            [paddle.nn.Linear(1, 1), paddle.nn.Linear(1, 1)],
            1.5,
        )

    labels = paddle.zeros([5], "int64")
    code = comparison(MODELS={"model": train}, labels=labels, classes=3)
    put(code.examine, scores=lambda images: {"mean": images.mean()})
    runs = [code.examine("model", 2, seed) for seed in (1, 1, 2)]
    result, shown, cost = runs[0]
    assert np.isclose(result["mean"], images[0].mean().item())
    assert np.isclose(result["error"], 0.3)
    assert (shown == images[0].numpy()[:3]).all()
    assert cost["trained"] == 1.5 and cost["sampled"] > 0 and cost["parameters"] == 4
    assert result["mean"] == runs[1][0]["mean"] != runs[2][0]["mean"]
    paddle.seed(1)  # and nothing of what the training left
    assert (images[0] == paddle.rand([5, 1, 2, 2])).all()
    code.MODELS["model"] = lambda *_: (sample, None, [], 0)
    assert "error" not in code.examine("model", 2, 1)[0]
