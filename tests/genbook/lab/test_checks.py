"""The checks of the lab's tasks: right answers pass, each classic mistake is called by its name.

A wrong answer is the lesson's own source with one edit, so that it is wrong in this one way, or a
function written out. Every mistake is tried on several inputs.
"""

import functools
import inspect
from statistics import NormalDist

import numpy as np
import paddle
import paddle.nn as nn
import pytest

from genbook import autoencoder, diffusion, vae
from genbook.lab import checks as check
from genbook.lab.checks.autoencoder import check_decoder, check_encoder, check_reconstruction
from genbook.lab.checks.compare import (
    Wrong,
    check_gradients,
    differentiable,
    expect_arguments,
    marks,
)
from genbook.lab.checks.diffusion import (
    check_diffusion_samples,
    check_p_sample,
    check_q_posterior_mean_variance,
    check_q_sample,
)
from genbook.lab.checks.samples import leaderboard_line, points, score_samples
from genbook.lab.checks.vae import check_gaussian_kl, check_reparameterize

SEEDS = range(5)


def edited(lesson, old, new):
    """A namespace of the lesson's source in which `old`, which stands there once, is `new`."""
    source = inspect.getsource(lesson)
    assert source.count(old) == 1, f"{old!r} stands {source.count(old)} times"
    namespace = {"__name__": "edited"}
    exec(compile(source.replace(old, new), "edited", "exec"), namespace)
    return namespace


def complaint(check_one, answer, seed):
    with pytest.raises(Wrong) as wrong:
        check_one(answer, seed)
    return str(wrong.value)


def assert_caught(check_one, answer, says):
    for seed in SEEDS:
        assert says in complaint(check_one, answer, seed)


# --- right answers ------------------------------------------------------------------------------

RIGHT = [
    (check_encoder, autoencoder.AutoEncoder),
    (check_decoder, autoencoder.AutoEncoder),
    (check_reparameterize, vae.reparameterize),
    (check_gaussian_kl, vae.gaussian_kl),
    (check_q_sample, diffusion.GaussianDiffusion),
    (check_q_posterior_mean_variance, diffusion.GaussianDiffusion),
    (check_p_sample, diffusion.GaussianDiffusion),
]


@pytest.mark.parametrize("check_one, answer", RIGHT, ids=lambda x: x.__name__)
@pytest.mark.parametrize("seed", range(12))
def test_the_lesson_is_right(check_one, answer, seed):
    check_one(answer, seed)


def other_reparameterize(m, s, noise=None):
    noise = paddle.standard_normal(m.shape) if noise is None else noise
    return paddle.einsum("nj,nj->nj", noise, (s / 2).exp()) + m


def other_kl(m, log_v):
    total = paddle.zeros([m.shape[0]])
    for j in range(m.shape[1]):
        total = total - (1 + log_v[:, j] - m[:, j] ** 2 - paddle.exp(log_v[:, j])) / 2
    return total


class OtherAutoEncoder(nn.Layer):
    """Strides for poolings, normalised before the activation, upsampled before convolutions."""

    def __init__(self, channels=3):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2D(channels, 16, 4, 2, 1), nn.BatchNorm2D(16), nn.LeakyReLU(),
            nn.Conv2D(16, 32, 4, 2, 1), nn.GroupNorm(4, 32), nn.GELU(),
        )  # fmt: skip
        self.decoder = nn.Sequential(
            nn.Upsample(scale_factor=2), nn.Conv2D(32, 16, 3, padding=1), nn.BatchNorm2D(16), nn.GELU(),
            nn.Upsample(scale_factor=2), nn.Conv2D(16, channels, 3, padding=1), nn.Sigmoid(),
        )  # fmt: skip


class OtherDiffusion(diffusion.GaussianDiffusion):
    """The same three methods along other lines."""

    def q_sample(self, clean, step, eps=None):
        eps = paddle.randn(clean.shape) if eps is None else eps
        rows = [
            float(np.sqrt(self.alphas_cumprod[s])) * x
            + float(np.sqrt(1 - self.alphas_cumprod[s])) * e
            for x, s, e in zip(clean, step.tolist(), eps)
        ]
        return paddle.stack(rows)

    def q_posterior_mean_variance(self, x_start, x_t, t):
        beta, bar, before = (
            paddle.to_tensor(a, dtype="float32")[t].reshape([-1, 1, 1, 1])
            for a in (self.betas, self.alphas_cumprod, self.alphas_cumprod_prev)
        )
        eps = (x_t - bar.sqrt() * x_start) / (1 - bar).sqrt()  # the mean by way of the noise
        mean = (x_t - beta / (1 - bar).sqrt() * eps) / (1 - beta).sqrt()
        mean = paddle.where(t.reshape([-1, 1, 1, 1]) == 0, x_start, mean)
        variance = beta * (1 - before) / (1 - bar)
        return mean, variance, variance.clip(min=1e-20).log()

    def p_sample(self, model, x_t, t, noise=None):
        noise = paddle.randn(x_t.shape) if noise is None else noise
        mean, variance, *_ = self.p_mean_variance(model, x_t, t)
        return mean + variance.sqrt() * noise  # the variance is 0 at t = 0


@pytest.mark.parametrize("check_one, answer", [
    (check_encoder, OtherAutoEncoder),
    (check_decoder, OtherAutoEncoder),
    (check_reparameterize, other_reparameterize),
    (check_gaussian_kl, other_kl),
    (check_q_sample, OtherDiffusion),
    (check_q_posterior_mean_variance, OtherDiffusion),
    (check_p_sample, OtherDiffusion),
], ids=lambda x: x.__name__)  # fmt: skip
@pytest.mark.parametrize("seed", SEEDS)
def test_another_right_answer_is_right(check_one, answer, seed):
    check_one(answer, seed)


# --- task 1 -------------------------------------------------------------------------------------

POOL = "            nn.MaxPool2D(2, 2),  # [N, {}, H/{}, W/{}]\n"
FIRST_CONV = "nn.Conv2D(in_channels, 16, 3, stride=1, padding=1)"
ENCODER_MISTAKES = {
    "14x14, expected 7x7: is the second pooling missing?": (POOL.format(32, 4, 4), ""),
    "is there one pooling too many?": (POOL.format(32, 4, 4), 2 * POOL.format(32, 4, 4)),
    "is padding=1 missing?": ("nn.Conv2D(16, 32, 3, stride=1, padding=1)", "nn.Conv2D(16, 32, 3)"),
    "with in_channels=1": (FIRST_CONV, "nn.Conv2D(3, 16, 3, padding=1)"),
    "gives 48 channels, expected 32": (
        (
            "nn.Conv2D(16, 32, 3, stride=1, padding=1),  # [N, 32, H/2, W/2]\n            nn.ReLU(),"
            "\n            nn.BatchNorm2D(32),"
        ),
        "nn.Conv2D(16, 48, 3, padding=1), nn.ReLU(), nn.BatchNorm2D(48),",
    ),
    "the encoder's output has the shape": (
        POOL.format(32, 4, 4),
        POOL.format(32, 4, 4) + "nn.Flatten(),",
    ),
    "the encoder stops with ValueError": ("nn.BatchNorm2D(32)", "nn.BatchNorm2D(16)"),
}
DECODER_MISTAKES = {
    "sigmoid at its end, not Tanh": ("nn.Sigmoid()", "nn.Tanh()"),
    "sigmoid is missing": ("            nn.Sigmoid(),\n", ""),
    "a ReLU stands where its sigmoid belongs": ("nn.Sigmoid()", "nn.ReLU()"),
    "a second sigmoid": ("nn.Sigmoid()", "nn.Sigmoid(), nn.Sigmoid()"),
    "14x14, expected 28x28: is the second transposed convolution missing, or its stride=2?": (
        "nn.Conv2DTranspose(16, in_channels, 2, stride=2)",
        "nn.Conv2D(16, in_channels, 3, padding=1)",
    ),
    "a kernel of 3 does not": (
        "nn.Conv2DTranspose(32, 16, 2, stride=2)", "nn.Conv2DTranspose(32, 16, 3, stride=2)"
    ),
    "with in_channels=1, the decoder's output": (
        "nn.Conv2DTranspose(16, in_channels,", "nn.Conv2DTranspose(16, 3,"
    ),
}  # fmt: skip


@pytest.mark.parametrize("says", ENCODER_MISTAKES)
def test_mistakes_in_the_encoder(says):
    answer = edited(autoencoder, *ENCODER_MISTAKES[says])["AutoEncoder"]
    assert_caught(check_encoder, answer, says)
    check_decoder(answer)


@pytest.mark.parametrize("says", DECODER_MISTAKES)
def test_mistakes_in_the_decoder(says):
    answer = edited(autoencoder, *DECODER_MISTAKES[says])["AutoEncoder"]
    assert_caught(check_decoder, answer, says)
    check_encoder(answer)


def without(kind):
    """An AutoEncoder without the layers of one kind."""

    class Answer(autoencoder.AutoEncoder):
        def __init__(self, in_channels=3):
            super().__init__(in_channels)
            for name in ("encoder", "decoder"):
                layers = [x for x in getattr(self, name) if not isinstance(x, kind)]
                setattr(self, name, nn.Sequential(*layers))

    return Answer


def test_an_autoencoder_without_some_kind_of_layer():
    assert_caught(check_encoder, without(nn.MaxPool2D), "28x28, expected 7x7: are both poolings")
    assert_caught(check_encoder, without(nn.ReLU), "the encoder has no activation")
    assert_caught(check_encoder, without(nn.BatchNorm2D), "is BatchNorm2D missing?")
    assert_caught(check_decoder, without(nn.ReLU), "the decoder has no activation before")
    assert_caught(check_encoder, without(nn.Layer), "the encoder is still empty")
    assert_caught(check_decoder, without(nn.Layer), "the decoder is still empty")


class OwnNetwork(nn.Layer):
    """The layers of a network, in a forward of its own."""

    def __init__(self, network):
        super().__init__()
        self.layers = nn.LayerList(network)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class InNetworksOfItsOwn(autoencoder.AutoEncoder):
    def __init__(self, in_channels=3):
        super().__init__(in_channels)
        self.encoder, self.decoder = OwnNetwork(self.encoder), OwnNetwork(self.decoder)


@pytest.mark.parametrize("check_one", [check_encoder, check_decoder])
def test_networks_of_ones_own_are_right(check_one):
    check_one(InNetworksOfItsOwn)


def test_an_answer_that_is_no_function_or_returns_no_tensor():
    few = functools.partial(lambda a, b: a, 1)
    with pytest.raises(Wrong, match="the function must take 2 arguments"):
        expect_arguments(few, 2, "mu, logvar")
    with pytest.raises(Wrong, match="no gradient reaches"):
        check_gradients(np.ones(2), differentiable([np.ones(2)]), {"mu": np.ones(2)}, "kl")


def test_an_object_in_place_of_the_class():
    assert_caught(check_encoder, autoencoder.AutoEncoder(), "give the class AutoEncoder itself")


def test_reconstruction():
    images = np.random.default_rng(0).random((8, 1, 8, 8))
    assert check_reconstruction(nn.Identity(), images) < 1e-10
    with pytest.raises(Wrong, match=r"the mean squared error on new images is 0\.\d+, expected"):
        check_reconstruction(autoencoder.AutoEncoder(1), images)
    with pytest.raises(Wrong, match="the reconstruction has the shape"):
        check_reconstruction(nn.Flatten(), images)
    with pytest.raises(Wrong, match="is the model trained"):  # nan is not small
        check_reconstruction(lambda_layer(lambda x: x * float("nan")), images)


def test_a_model_that_has_learned_something_keeps_a_part_and_every_model_its_mode(capsys):
    images = np.random.default_rng(0).random((8, 1, 8, 8))
    shrunk = lambda_layer(lambda x: 0.5 + 0.5 * (x - 0.5))
    assert marks(3, check_reconstruction, shrunk, [images]) == 2
    assert capsys.readouterr().out.startswith("2 of 3 points: the mean squared error")
    model = autoencoder.AutoEncoder(1)
    model.decoder.eval()
    with pytest.raises(Wrong):
        check_reconstruction(model, images)
    assert model.training and model.encoder[2].training and not model.decoder[2].training


def lambda_layer(function):
    layer = nn.Layer()
    layer.forward = function
    return layer


# --- task 2 -------------------------------------------------------------------------------------

EXACT = "mu + paddle.exp(0.5 * logvar) * eps"
REPARAMETERIZE_MISTAKES = {
    "sigma was taken for log-variance": (EXACT, "mu + logvar * eps"),
    "the variance stands where sigma belongs": (EXACT, "mu + logvar.exp() * eps"),
    "logvar was taken for the variance": (EXACT, "mu + logvar.sqrt() * eps"),
    "its exponential is missing": (EXACT, "mu + 0.5 * logvar * eps"),
    "this divides by sigma": (EXACT, "mu + paddle.exp(-0.5 * logvar) * eps"),
    "eps is not scaled": (EXACT, "mu + eps"),
    "mu is missing": (EXACT, "paddle.exp(0.5 * logvar) * eps"),
    "no noise was added": (EXACT, "mu"),
    "subtracted and not added": (EXACT, "mu - paddle.exp(0.5 * logvar) * eps"),
    "draws noise although it is given eps": ("if eps is None:", "if True:"),
    "every row of the batch gets the same noise": ("randn(mu.shape", "randn([1, mu.shape[1]]"),
    "all of a row get the same noise": ("randn(mu.shape", "randn([mu.shape[0], 1]"),
    "the noise is uniform on [0, 1)": ("paddle.randn", "paddle.rand"),
    "expected 0 and 1": ("paddle.randn(mu.shape,", "2 * paddle.randn(mu.shape,"),
    "not normally distributed": (
        "paddle.randn(mu.shape, dtype=mu.dtype)", "12**0.5 * (paddle.rand(mu.shape) - 0.5)"
    ),
    "no gradient reaches mu": (EXACT, "(mu + paddle.exp(0.5 * logvar) * eps).detach()"),
    "no gradient reaches logvar": (EXACT, "mu + paddle.exp(0.5 * logvar).detach() * eps"),
    "returns nothing: is it still to be written?": ("return " + EXACT, "pass"),
    "stops with NameError": (EXACT, "mu + sigma * eps"),
    "must take 3 arguments: mu, logvar and eps": ("mu, logvar, eps=None):", "mu, logvar):\n    eps=None"),
}  # fmt: skip
KL = "0.5 * (logvar.exp() + mu.square() - 1.0 - logvar).sum(axis=1)"
KL_MISTAKES = {
    "this KL is averaged over the batch; the lab asks for the sum over dimensions": KL + ".mean()",
    "this KL is averaged over the dimensions": KL.replace("sum(", "mean("),
    "this KL is averaged over the batch and the dimensions": KL.replace("sum(axis=1)", "mean()"),
    "this KL is summed over the batch as well": KL + ".sum()",
    "this KL is not summed over the dimensions": KL.replace(".sum(axis=1)", ""),
    "take axis=1": KL.replace("axis=1", "axis=0"),
    "take the sum with axis=1": KL.replace("sum(axis=1)", "mean(axis=0)"),
    "sum without keepdim": KL.replace("axis=1", "axis=1, keepdim=True"),
    "sigma was taken for log-variance": (
        "0.5 * (logvar.square() + mu.square() - 1 - logvar.square().log()).sum(axis=1)"
    ),
    "the variance was taken for log-variance": (
        "0.5 * (logvar + mu.square() - 1 - logvar.log()).sum(axis=1)"
    ),
    "log sigma was taken for log-variance": (
        "0.5 * ((2 * logvar).exp() + mu.square() - 1 - 2 * logvar).sum(axis=1)"
    ),
    "sigma stands where sigma^2 belongs": KL.replace("logvar.exp", "(0.5 * logvar).exp"),
    "the factor 1/2 is missing": KL.replace("0.5 * ", ""),
    "the sign is wrong, a KL is never negative": "-" + KL,
    "mu is not squared": KL.replace("mu.square()", "mu"),
    "the term mu^2 is missing": KL.replace("mu.square() ", ""),
    "the term -1 is missing": KL.replace("- 1.0 ", ""),
    "the 1 has the wrong sign": KL.replace("- 1.0", "+ 1.0"),
    "log sigma^2 has the wrong sign": KL.replace("- logvar", "+ logvar"),
    "the divergence in the other direction": (
        "0.5 * ((-logvar).exp() * (1 + mu.square()) - 1 + logvar).sum(axis=1)"
    ),
    "one number for each image; the factor 1/2 is missing": KL.replace("0.5 * ", "") + ".mean()",
    "no gradient reaches logvar": KL.replace("logvar.exp()", "logvar.detach().exp()").replace(
        "- logvar", "- logvar.detach()"
    ),
    "is a str, expected a tensor": "'0.5'",
}


@pytest.mark.parametrize("says", REPARAMETERIZE_MISTAKES)
def test_mistakes_in_reparameterize(says):
    answer = edited(vae, *REPARAMETERIZE_MISTAKES[says])["reparameterize"]
    assert_caught(check_reparameterize, answer, says)


@pytest.mark.parametrize("says", KL_MISTAKES)
def test_mistakes_in_the_kl(says):
    assert_caught(check_gaussian_kl, edited(vae, KL, KL_MISTAKES[says])["gaussian_kl"], says)


# --- task 3 -------------------------------------------------------------------------------------

FORWARD = "return signal * x_start + self._noise_scale(t, x_start.ndim) * noise"
AB, ROOT = "extract(self.alphas_cumprod, t)", "extract(np.sqrt(self.alphas_cumprod), t)"
REST = "extract(np.sqrt(1 - self.alphas_cumprod), t)"
Q_SAMPLE_MISTAKES = {
    "the roots are missing": f"return {AB} * x_start + (1 - {AB}) * noise",
    "the root of 1 - alpha_bar is missing": f"return {ROOT} * x_start + (1 - {AB}) * noise",
    "the root of alpha_bar is missing": f"return {AB} * x_start + {REST} * noise",
    "the two scales are exchanged": f"return {REST} * x_start + {ROOT} * noise",
    "this is one step only": (
        "return extract(np.sqrt(1 - self.betas), t) * x_start "
        "+ extract(np.sqrt(self.betas), t) * noise"
    ),
    "it must be sqrt(1 - alpha_bar), or": f"return {ROOT} * x_start + (1 - {ROOT}) * noise",
    "the image is not scaled": f"return x_start + {REST} * noise",
    "the noise is not scaled": f"return {ROOT} * x_start + noise",
    "no noise was added": f"return {ROOT} * x_start",
    "t is off by one": (
        "return extract(np.sqrt(self.alphas_cumprod_prev), t) * x_start "
        "+ extract(np.sqrt(1 - self.alphas_cumprod_prev), t) * noise"
    ),
    "spread over the width": (
        "return paddle.to_tensor(self.sqrt_alphas_cumprod[t.numpy()], dtype='float32') * x_start "
        "+ paddle.to_tensor(self.sqrt_one_minus_alphas_cumprod[t.numpy()], dtype='float32') * noise"
    ),
    "draws noise although it is given some": f"return {ROOT} * x_start + {REST} * paddle.randn(x_start.shape)",
    "the noise is uniform": "",
    "returns nothing": "pass",
}
MEAN = "extract(self.posterior_mean_coef{}, t, x_t.ndim) * {}"
FIRST, SECOND = MEAN.format(1, "x_start"), MEAN.format(2, "x_t")
VARIANCE = "variance = extract(self.posterior_variance, t, x_t.ndim)"
POSTERIOR_MISTAKES = {
    "the two coefficients of the mean are exchanged": (
        f"{FIRST}\n            + {SECOND}",
        f"{FIRST.replace('1', '2')}\n            + {SECOND.replace('coef2', 'coef1')}",
    ),
    "take sqrt(alpha_bar_{t-1})": ("betas * np.sqrt(self.alphas_cumprod_prev) / rest", "betas * np.sqrt(self.alphas_cumprod) / rest"),
    "take 1 - alpha_bar_{t-1}": ("rest_prev * np.sqrt(alphas) / rest", "np.sqrt(alphas)"),
    "take the root of one step": ("rest_prev * np.sqrt(alphas) / rest", "rest_prev * np.sqrt(self.alphas_cumprod) / rest"),
    "the term of x_t is missing": ("+ " + SECOND, ""),
    "the term of x_start is missing": (FIRST + "\n            + ", ""),
    "the variance is beta_t": (VARIANCE, "variance = extract(self.betas, t, x_t.ndim)"),
    "the root of the variance": (VARIANCE, VARIANCE + ".sqrt()"),
    "1 - alpha_bar_t": (VARIANCE, "variance = extract(1 - self.alphas_cumprod, t, x_t.ndim)"),
    "the log variance at t = 0 is infinite": (
        "extract(self.posterior_log_variance_clipped, t, x_t.ndim)", "variance.log()"
    ),
    "the log variance is half of the right one": (
        "extract(self.posterior_log_variance_clipped, t, x_t.ndim)",
        "0.5 * extract(self.posterior_log_variance_clipped, t, x_t.ndim)",
    ),
    "the third result is the standard deviation": (
        "extract(self.posterior_log_variance_clipped, t, x_t.ndim)", "variance.sqrt()"
    ),
    "must return three things": ("return mean, variance, log_variance", "return mean, variance"),
    "returns nothing": ("return mean, variance, log_variance", "pass"),
}  # fmt: skip
STEP = "return mean + noisy * paddle.exp(0.5 * log_variance) * noise"
P_SAMPLE_MISTAKES = {
    "noise was added at t = 0: the last step gives the mean": (STEP, STEP.replace("noisy * ", "")),
    "no noise was added: only the last step": (STEP, "return mean"),
    "noise was added at t = 0 and nowhere else": ("(t > 0)", "(t == 0)"),
    "no noise was added at t = 1": ("(t > 0)", "(t > 1)"),
    "one image decides": (STEP, "return mean + float(t[0] > 0) * paddle.exp(0.5 * log_variance) * noise"),
    "the variance stands where sigma belongs": (STEP, STEP.replace("0.5 * ", "")),
    "sigma was taken for log-variance": (STEP, "return mean + noisy * log_variance * noise"),
    "noise was added at t = 0": (STEP, "return mean + log_variance.exp() * noise"),
    "the noise is not scaled": (STEP, "return mean + noisy * noise"),
    "the noise is added to x_t": (STEP, STEP.replace("mean", "x_t")),
    "start from the posterior's mean": ("mean, _, log_variance, _ =", "_, _, log_variance, mean ="),
    "this is the estimate of x_start": (STEP, "return self.predict_start(model, x_t, t)"),
    "draws noise although it is given some": (STEP, "return mean + noisy * paddle.exp(0.5 * log_variance) * paddle.randn(x_t.shape)"),
    "gives the same twice": (
        "noise = paddle.randn(x_t.shape)\n        mean,", "noise = paddle.zeros(x_t.shape)\n        mean,"
    ),
    "spread over the width": (".reshape([-1] + [1] * (x_t.ndim - 1))\n        " + STEP, "\n        " + STEP),
    "stops with": (STEP, "return mean + nois"),
}  # fmt: skip


@pytest.mark.parametrize("says", Q_SAMPLE_MISTAKES)
def test_mistakes_in_q_sample(says):
    old, new = FORWARD, Q_SAMPLE_MISTAKES[says]
    if says == "the noise is uniform":
        old = "noise = paddle.randn(x_start.shape)\n        signal"
        new = "noise = paddle.rand(x_start.shape)\n        signal"
    answer = edited(diffusion, old, new)["GaussianDiffusion"]
    assert_caught(check_q_sample, answer, says)
    check_p_sample(answer)


@pytest.mark.parametrize("says", POSTERIOR_MISTAKES)
def test_mistakes_in_the_posterior(says):
    answer = edited(diffusion, *POSTERIOR_MISTAKES[says])["GaussianDiffusion"]
    assert_caught(check_q_posterior_mean_variance, answer, says)
    check_q_sample(answer)
    check_p_sample(answer)  # one mistake does not count twice


@pytest.mark.parametrize("says", P_SAMPLE_MISTAKES)
def test_mistakes_in_p_sample(says):
    answer = edited(diffusion, *P_SAMPLE_MISTAKES[says])["GaussianDiffusion"]
    assert_caught(check_p_sample, answer, says)
    check_q_posterior_mean_variance(answer)


def test_samples_that_look_like_images():
    rng = np.random.default_rng(0)
    images = np.sign(rng.standard_normal((1, 1, 8, 8))) * rng.uniform(0.2, 1, (300, 1, 8, 8))
    check_diffusion_samples(paddle.to_tensor(images[:100]), images)
    for samples, says in [
        (np.zeros((100, 1, 8, 8)), "away from the mean image"),
        (1e5 * images, "is x_start clipped in each step"),
        (1.4 * (images - images.mean(0)) + images.mean(0), "vary 1.40 times"),
        (np.tile(images.mean(0), (100, 1, 1, 1)), "vary 0.00 times as much"),
        (rng.uniform(-1.7, 1.7, (100, 1, 8, 8)), "away from the mean image"),
        (images[:, :, :4], "has the shape"),
        (np.zeros(()), "has the shape"),
        (images * np.nan, "not a number"),
    ]:
        with pytest.raises(Wrong, match=says):
            check_diffusion_samples(samples, images)


# --- the improved VAE ---------------------------------------------------------------------------


class OneBright:
    """Judges images of one row of K pixels: the brightest is the class, its brightness how sure."""

    def probabilities(self, images):
        pixels = np.asarray(images).reshape(len(images), -1)
        rest = (1 - pixels.max(1, keepdims=True)) / (pixels.shape[1] - 1)
        return np.where(pixels == pixels.max(1, keepdims=True), pixels, rest)


def bright(classes, sure, k=10):
    """Images [N, 1, 1, K] of these classes, of which the judge is so sure."""
    images = np.zeros((len(classes), 1, 1, k), "float32")
    images[np.arange(len(classes)), 0, 0, classes] = sure
    return images


REAL = bright(np.arange(400) % 10, np.linspace(0.8, 1, 400))  # half of them are legible


def decoder(legible, classes=10):
    """A decoder that makes such a share of legible images: z_1 gives the class, z_2 how sure."""
    cut = NormalDist().inv_cdf(legible)

    def decode(z):
        z = z.numpy()
        which = (np.abs(z[:, 0]) * 997 % classes).astype(int)
        return paddle.to_tensor(bright(which, np.where(z[:, 1] < cut, 0.95, 0.7)))

    return decode


TRAINING = bright(np.arange(400) % 10, np.linspace(0.5, 0.9, 400))


def score(decode):
    return score_samples(decode, 2, OneBright(), TRAINING, REAL, seed=3)


def of_variety(decode):
    """Images that differ, as those of a trained model do."""

    def varied(z):
        images = decode(z).numpy()
        rest = np.abs(z.numpy()[:, :1, None, None]) % 0.2
        return paddle.to_tensor(np.where(images == 0, rest, images))

    return varied


@pytest.mark.parametrize(
    "legible, most", [(0.05, 1.1), (0.1, 2.3), (0.2, 4.5), (0.275, 7.3), (0.35, 10), (0.4, 10)]
)
def test_points_follow_the_legibility_as_a_share_of_that_of_real_images(legible, most):
    found = score(of_variety(decoder(legible))) | {"copies": 0.0}
    np.testing.assert_allclose(found["share"], legible / 0.5, atol=0.04)
    assert abs(points(found, 10) - most) < 0.6
    assert leaderboard_line(found, "Ada").startswith(f"| Ada | {found['share']:.1%} |")


@pytest.mark.parametrize(
    "share, entropy, most",
    [(0.27, 0.79, (3, 5)), (0.31, 0.88, (3, 5)), (0.42, 0.95, (3, 5)), (0.36, 0.92, (3, 5)),
     (0.09, 0.56, (0, 1)), (0.7, 0.9, (10, 10)), (0.9, 0.0, (0, 0))],
)  # fmt: skip
def test_points_of_what_was_measured(share, entropy, most):
    """The loss of the lab's sheet after 1,500 steps, beta 1 or 0.1, and the baseline."""
    found = {"share": share, "entropy": entropy, "copies": 0.0, "variety": 0.3, "flaws": []}
    assert most[0] <= points(found, 10) <= most[1]


def test_no_part_of_a_score_has_a_cliff():
    best = {"share": 0.7, "entropy": 1.0, "copies": 0.0, "variety": 1.0, "flaws": []}
    for part in ("share", "entropy", "copies", "variety"):
        given = [points(best | {part: value}, 10) for value in np.linspace(0, 1, 101)]
        assert min(given) == 0 and max(given) == 10
        assert np.abs(np.diff(given)).max() < 0.5


def class_means(z):
    """One image for each class, by the largest part of the code."""
    return paddle.to_tensor(bright((np.abs(z.numpy()[:, 0]) * 997 % 10).astype(int), 0.95))


def test_what_costs_points_is_said(capsys):
    chance = np.random.default_rng(0)
    whole = decoder(0.5)

    def sometimes(z):
        return paddle.to_tensor(whole(z).numpy() * chance.uniform(0.99, 1, (len(z), 1, 1, 1)))

    def copied(z):
        return paddle.to_tensor(TRAINING[(z.numpy()[:, 0] * 1e5).astype(int) % 400])

    for decode, most, says in [
        (lambda z: whole(z) * 2, 8, "and images are in [0, 1]"),
        (sometimes, 8, "or on chance"),
        (decoder(0.5, classes=3), 4, "some digits hardly occur"),
        (copied, 0, "are copies of training images"),
        (class_means, 0, "the samples are too much alike"),
    ]:
        given = points(score(decode), 10)
        said = capsys.readouterr().out
        assert given <= most and says in said and said.startswith(f"{given:g} of 10 points: ")


def test_samples_that_are_no_images():
    for decode, says in [
        (lambda z: paddle.zeros([len(z), 1, 2, 5]), "has the shape"),
        (lambda z: decoder(0.5)(z) * float("nan"), "not a number"),
        (lambda z: None, "returns nothing"),
        (lambda z: z.nothing, "decode stops with AttributeError"),
    ]:
        with pytest.raises(Wrong, match=says):
            score(decode)


# --- as a student calls them --------------------------------------------------------------------


def test_each_task_prints_what_is_right_and_wrong(capsys):
    check.task1(
        edited(autoencoder, *DECODER_MISTAKES["sigmoid at its end, not Tanh"])["AutoEncoder"]
    )
    check.task2(vae.reparameterize, edited(vae, KL, KL + ".mean()")["gaussian_kl"])
    check.task3(edited(diffusion, "(t > 0)", "(t >= 0)")["GaussianDiffusion"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        "encoder", "decoder", "reparameterize", "gaussian_kl",
        "q_sample", "q_posterior_mean_variance", "p_sample",
    ]  # fmt: skip
    assert [line for line in lines if line.endswith(": right")] == [
        lines[0],
        *lines[2:6:2],
        lines[5],
    ]
    assert "Tanh" in lines[1] and "averaged over the batch" in lines[3]
    assert "noise was added at t = 0" in lines[6]
