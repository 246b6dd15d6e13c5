"""Answers as students write them, with the points that a fair person gives, and what must be said.

A right answer gets all points however it is written; of a wrong one the mistake is named.
"""

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F
import pytest

from genbook import accelerate
from genbook.diffusion import GaussianDiffusion, extract
from genbook.lab.checks.autoencoder import check_decoder, check_encoder
from genbook.lab.checks.compare import Wrong, marks
from genbook.lab.checks.diffusion import (
    check_p_sample,
    check_q_posterior_mean_variance,
    check_q_sample,
)
from genbook.lab.checks.vae import check_gaussian_kl, check_reparameterize

GIVEN = {"np": np, "paddle": paddle, "nn": nn, "F": F, "extract": extract}
SEEDS = (0, 1, 2)


def written(code, **more):
    """The last name that this code defines."""
    names = {**GIVEN, **more, "__name__": "answer"}
    before = set(names)
    exec(compile(code, "answer", "exec"), names)
    return names[[name for name in names if name not in before and name != "__builtins__"][-1]]


def graded(capsys, check, answer):
    """The points of four, and what is said."""
    try:
        given = marks(4, check, answer, SEEDS)
    except Wrong as wrong:
        return 0, str(wrong)
    return given, capsys.readouterr().out


# --- task 1 -------------------------------------------------------------------------------------

LAYERS = """
class AutoEncoder(nn.Layer):
    def __init__(self, in_channels=3):
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2D(in_channels, 16, 3, padding=1), nn.ReLU(), nn.BatchNorm2D(16), nn.MaxPool2D(2),
            nn.Conv2D(16, 32, 3, padding=1), nn.ReLU(), nn.BatchNorm2D(32), nn.MaxPool2D(2))
        self.decoder = nn.Sequential(
            nn.Conv2DTranspose(32, 16, 2, stride=2), nn.ReLU(), nn.BatchNorm2D(16),
            nn.Conv2DTranspose(16, in_channels, 2, stride=2), nn.Sigmoid())

    def forward(self, x):
        return self.decoder(self.encoder(x))
"""
OWN_CLASSES = """
class Encoder(nn.Layer):
    def __init__(self, c):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2D(c, 16, 3, 1, 1), nn.Conv2D(16, 32, 3, 1, 1)
        self.bn1, self.bn2 = nn.BatchNorm2D(16), nn.BatchNorm2D(32)
        self.pool = nn.MaxPool2D(2, 2)

    def forward(self, x):
        x = self.pool(self.bn1(F.relu(self.conv1(x))))
        return self.pool(self.bn2(F.relu(self.conv2(x))))


class Decoder(nn.Layer):
    def __init__(self, c):
        super().__init__()
        self.up1, self.up2 = nn.Conv2DTranspose(32, 16, 2, 2), nn.Conv2DTranspose(16, c, 2, 2)
        self.bn = nn.BatchNorm2D(16)

    def forward(self, z):
        return F.sigmoid(self.up2(self.bn(F.relu(self.up1(z)))))


class AutoEncoder(nn.Layer):
    def __init__(self, in_channels=3):
        super().__init__()
        self.encoder, self.decoder = Encoder(in_channels), Decoder(in_channels)

    def forward(self, x):
        return self.decoder(self.encoder(x))
"""
FUNCTIONAL = """
class AutoEncoder(nn.Layer):
    def __init__(self, in_channels=3):
        super().__init__()
        self.c1, self.c2 = nn.Conv2D(in_channels, 16, 3, padding=1), nn.Conv2D(16, 32, 3, padding=1)
        self.t1 = nn.Conv2DTranspose(32, 16, 2, stride=2)
        self.t2 = nn.Conv2DTranspose(16, in_channels, 2, stride=2)
        self.b1, self.b2, self.b3 = (nn.BatchNorm2D(n) for n in (16, 32, 16))

    def encode(self, x):
        for conv, norm in ((self.c1, self.b1), (self.c2, self.b2)):
            x = F.max_pool2d(norm(F.relu(conv(x))), 2)
        return x

    def decode(self, z):
        return paddle.nn.functional.sigmoid(self.t2(self.b3(F.relu(self.t1(z)))))

    def forward(self, x):
        return self.decode(self.encode(x))
"""


def edited(code, *changes):
    for old, new in changes:
        assert old in code, old
        code = code.replace(old, new)
    return code


POOL, NORM = "nn.MaxPool2D(2)", "nn.BatchNorm2D({}), "
WEAK = [("16", "8"), ("nn.ReLU", "nn.Tanh"), ("MaxPool", "AvgPool")]
SIGMOID_IN_DECODE = """
    def decode(self, z):
        return F.sigmoid(self.decoder(z))
"""
EMPTY = """
class AutoEncoder(nn.Layer):
    def __init__(self, in_channels=3):
        super().__init__()
        self.encoder, self.decoder = nn.Sequential(), nn.Sequential()
"""
# What it is, the code, the points of the encoder and of the decoder, and what is said of either.
NETWORKS = [
    ("the layers that were asked for", LAYERS, 4, 4, "", ""),
    ("classes of one's own", OWN_CLASSES, 4, 4, "", ""),
    ("functions between layers", FUNCTIONAL, 4, 4, "", ""),
    ("no ReLU layer, but a maximum", edited(FUNCTIONAL, ("F.relu(", "(lambda x: paddle.maximum(x, 0 * x))(")), 4, 4, "", ""),
    ("functions without ReLU", edited(FUNCTIONAL, ("F.relu", "")), 2, 2, "has no activation", "has no activation"),
    ("the sigmoid stands in decode", edited(LAYERS, (", nn.Sigmoid()", "")) + SIGMOID_IN_DECODE, 4, 4, "", ""),
    ("strides, LeakyReLU and GroupNorm", edited(
        LAYERS, ("3, padding=1)", "3, stride=2, padding=1)"), (f", {POOL}", ""), ("nn.ReLU", "nn.LeakyReLU"),
        ("nn.BatchNorm2D(", "nn.GroupNorm(4, ")), 4, 4, "", ""),
    ("kernels of 3 that double the side", edited(
        LAYERS, ("2, stride=2)", "3, stride=2, padding=1, output_padding=1)")), 4, 4, "", ""),
    ("upsampling before convolutions", edited(
        LAYERS, ("nn.Conv2DTranspose(32, 16, 2, stride=2)", "nn.Upsample(scale_factor=2), nn.Conv2D(32, 16, 3, padding=1)"),
        ("nn.Conv2DTranspose(16, in_channels, 2, stride=2)", "nn.Upsample(scale_factor=2), nn.Conv2D(16, in_channels, 3, padding=1)")), 4, 4, "", ""),
    ("three channels written out", edited(LAYERS, ("Conv2D(in_channels", "Conv2D(3"), ("16, in_channels", "16, 3")), 4, 4, "in_channels belongs", "in_channels belongs"),
    ("three channels and no argument", edited(LAYERS, ("self, in_channels=3", "self"), ("Conv2D(in_channels", "Conv2D(3"), ("16, in_channels", "16, 3")), 4, 4, "in_channels belongs", "in_channels belongs"),
    ("8 maps, Tanh, average pooling", edited(LAYERS, *WEAK), 1, 2, "averages where it pools", "levels off"),
    ("8 maps, Tanh, average pooling, functional", edited(
        FUNCTIONAL, ("16", "8"), ("F.relu", "F.tanh"), ("max_pool", "avg_pool")), 1, 2, "has 8 feature maps", "levels off"),
    ("average pooling", edited(LAYERS, ("MaxPool", "AvgPool")), 3, 4, "a max pooling was asked for", ""),
    ("24 maps", edited(LAYERS, ("16", "24")), 3, 3, "has 24 feature maps in between", "asked for were 16"),
    ("one batch normalisation less", edited(LAYERS, (NORM.format(32), "")), 2, 4, "normalises only once", ""),
    ("the decoder's batch normalisation is missing", edited(
        OWN_CLASSES, ("self.bn(F.relu(self.up1(z)))", "F.relu(self.up1(z))")), 4, 2, "", "does not normalise"),
    ("no batch normalisation", edited(LAYERS, ("nn.BatchNorm2D(32)", "nn.Identity()"), ("nn.BatchNorm2D(16)", "nn.Identity()")), 2, 2, "BatchNorm2D", "BatchNorm2D"),
    ("one ReLU less", edited(LAYERS, ("nn.ReLU(), nn.BatchNorm2D(32)", "nn.BatchNorm2D(32)")), 2, 4, "one convolution only", ""),
    ("no activation", edited(LAYERS, ("nn.ReLU(), ", "")), 2, 2, "has no activation", "has no activation"),
    ("Tanh at the end", edited(LAYERS, ("nn.Sigmoid", "nn.Tanh")), 4, 3, "", "not Tanh"),
    ("no sigmoid", edited(LAYERS, (", nn.Sigmoid()", "")), 4, 3, "", "its sigmoid is missing"),
    ("no padding", edited(LAYERS, (", padding=1", "")), 2, 4, "padding=1 missing", ""),
    ("one pooling", edited(LAYERS, ("nn.BatchNorm2D(32), nn.MaxPool2D(2)", "nn.BatchNorm2D(32)")), 2, 4, "second pooling", ""),
    ("kernels of 3", edited(LAYERS, ("2, stride=2)", "3, stride=2)")), 4, 2, "", "a kernel of 3 does not"),
    ("a code of 64 maps", edited(LAYERS, ("32", "64")), 2, 4, "64 channels, expected 32", ""),
    ("a pooling to 7 x 7 whatever the size", edited(
        LAYERS, ("nn.BatchNorm2D(32), nn.MaxPool2D(2)", "nn.BatchNorm2D(32), nn.AdaptiveMaxPool2D(7)")), 2, 4, "a size such as 7", ""),
    ("detached", edited(FUNCTIONAL, ("return x\n", "return x.detach()\n")), 0, 4, "no gradient", ""),
    ("a name that Paddle does not have", edited(LAYERS, ("Conv2D(", "LazyConv2d(")), 0, 0, "Paddle's documentation", "Paddle's documentation"),
    ("neither half can be found", edited(FUNCTIONAL, ("def encode", "def down"), ("def decode", "def up")), 0, 0, "neither a method .encode", "neither a method .decode"),
    ("nothing", EMPTY, 0, 0, "still empty", "still empty"),
]  # fmt: skip


@pytest.mark.parametrize("row", NETWORKS, ids=lambda row: row[0])
def test_networks(capsys, row):
    _, code, of_encoder, of_decoder, *says = row
    AutoEncoder = written(code)
    for check, fair, words in zip(
        (check_encoder, check_decoder), (of_encoder, of_decoder), says, strict=True
    ):
        given, said = graded(capsys, check, AutoEncoder)
        assert (given, words in said, bool(said)) == (fair, True, bool(words)), said


def test_accelerated_layers_are_known_as_well(capsys):
    with accelerate.enabled():
        for code in (LAYERS, FUNCTIONAL):
            for check in (check_encoder, check_decoder):
                assert graded(capsys, check, written(code)) == (4, "")


# --- task 2 -------------------------------------------------------------------------------------

DRAW = """
def reparameterize(mu, logvar, eps=None):
    if eps is None:
        eps = paddle.randn(mu.shape)
    return {}
"""
# What it is, the code, the points, and what is said.
DRAWS = [
    ("exp(0.5 * logvar)", DRAW.format("mu + paddle.exp(0.5 * logvar) * eps"), 4, ""),
    ("the root of exp(logvar)", DRAW.format("mu + eps * paddle.sqrt(paddle.exp(logvar))"), 4, ""),
    ("a root kept from 0", DRAW.format("mu + (logvar.exp() + 1e-8).sqrt() * eps"), 4, ""),
    ("clipped logvar", DRAW.format("mu + (logvar.clip(-20, 10) / 2).exp() * eps"), 4, ""),
    ("the habits of PyTorch", """
def reparameterize(mu, logvar, eps=None):
    std = logvar.mul(paddle.to_tensor(0.5)).exp()
    eps = paddle.randn_like(std) if eps is None else eps
    return eps.multiply(std).add(mu)
""", 4, ""),
    ("a normal distribution of Paddle", """
def reparameterize(mu, logvar, eps=None):
    if eps is None:
        eps = paddle.normal(paddle.zeros_like(mu), paddle.ones_like(mu))
    return paddle.add(mu, paddle.exp(logvar * 0.5) * eps)
""", 4, ""),
    ("eps is changed in place", DRAW.format("eps.multiply_((0.5 * logvar).exp()) + mu"), 3, "eps is changed in place"),
    ("logvar is changed in place", DRAW.format("mu + logvar.multiply_(paddle.to_tensor(0.5)).exp() * eps"), 3, "logvar is changed in place"),
    ("the gradient is cut where eps is drawn", """
def reparameterize(mu, logvar, eps=None):
    sigma = (0.5 * logvar).exp()
    if eps is None:
        return (mu + sigma * paddle.randn(mu.shape)).detach()
    return mu + sigma * eps
""", 1, "without eps: no gradient reaches mu"),
    ("drawn by Paddle, which lets gradients through", """
def reparameterize(mu, logvar, eps=None):
    if eps is None:
        return paddle.normal(mu, (0.5 * logvar).exp())
    return mu + (0.5 * logvar).exp() * eps
""", 4, ""),
    ("the gradient is cut where eps is given", """
def reparameterize(mu, logvar, eps=None):
    sigma = (0.5 * logvar).exp()
    return mu + sigma * paddle.randn(mu.shape) if eps is None else (mu + sigma * eps).detach()
""", 3, "no gradient reaches mu"),
    ("the gradient is cut", DRAW.format("(mu + (0.5 * logvar).exp() * eps).detach()"), 1, "no gradient reaches mu"),
    ("sigma is detached", DRAW.format("mu + (0.5 * logvar).exp().detach() * eps"), 1, "no gradient reaches logvar"),
    ("in numpy", DRAW.format("paddle.to_tensor(mu.numpy() + np.exp(0.5 * logvar.numpy()) * eps.numpy())"), 1, "no gradient"),
    ("eps is ignored", """
def reparameterize(mu, logvar, eps=None):
    return mu + (0.5 * logvar).exp() * paddle.randn(mu.shape)
""", 3, "draw only where eps is None"),
    ("eps must be given", "def reparameterize(mu, logvar, eps):\n    return mu + (0.5 * logvar).exp() * eps", 2, "without eps stops with"),
    ("subtracted", DRAW.format("mu - (0.5 * logvar).exp() * eps"), 3, "subtracted and not added"),
    ("the variance for sigma", DRAW.format("mu + logvar.exp() * eps"), 2, "the variance stands where sigma belongs"),
    ("softplus", DRAW.format("mu + F.softplus(logvar) * eps"), 2, "argument of a softplus"),
    ("uniform noise", DRAW.replace("randn", "rand").format("mu + (0.5 * logvar).exp() * eps"), 2, "the noise is uniform"),
    ("one eps for a row", DRAW.replace("mu.shape", "[mu.shape[0], 1]").format("mu + (0.5 * logvar).exp() * eps"), 2, "all of a row get the same noise"),
    ("no noise", DRAW.format("mu"), 1, "no noise was added"),
    ("something else", DRAW.format("mu * logvar + 3 * eps"), 0, "compute this one by hand"),
    ("dim=", DRAW.format("paddle.stack([mu, (0.5 * logvar).exp() * eps]).sum(dim=0)"), 4, ""),
    ("torch", DRAW.format("mu + torch.exp(0.5 * logvar) * eps"), 0, "PyTorch's name, and this is Paddle"),
]  # fmt: skip
KL = "def gaussian_kl(mu, logvar):\n    return {}"
RIGHT = "0.5 * (logvar.exp() + mu.square() - 1 - logvar)"
KLS = [
    ("as in the paper", KL.format("-0.5 * paddle.sum(1 + logvar - mu.pow(2) - logvar.exp(), axis=1)"), 4, ""),
    ("with sigma", "def gaussian_kl(mu, logvar):\n    sigma = paddle.sqrt(paddle.exp(logvar))\n"
     "    return (0.5 * (sigma**2 + mu**2 - 1) - paddle.log(sigma)).sum(-1)", 4, ""),
    ("with Paddle's distributions", "from paddle.distribution import Normal, kl_divergence\n\n\n"
     "def gaussian_kl(mu, logvar):\n    prior = Normal(paddle.zeros_like(mu), paddle.ones_like(mu))\n"
     "    return kl_divergence(Normal(mu, (0.5 * logvar).exp()), prior).sum(axis=1)", 4, ""),
    ("an einsum", KL.format(f"paddle.einsum('nj->n', {RIGHT})"), 4, ""),
    ("the mean over the batch", KL.format(f"({RIGHT}).sum(axis=1).mean()"), 3, "averaged over the batch"),
    ("the sum over the batch", KL.format(f"({RIGHT}).sum()"), 3, "summed over the batch as well"),
    ("the mean over dimensions", KL.format(f"({RIGHT}).mean(axis=1)"), 2, "averaged over the dimensions"),
    ("the mean over all", KL.format(f"({RIGHT}).mean()"), 2, "averaged over the batch and the dimensions"),
    ("no sum", KL.format(RIGHT), 3, "not summed over the dimensions"),
    ("keepdim", KL.format(f"({RIGHT}).sum(axis=1, keepdim=True)"), 3, "sum without keepdim"),
    ("no half", KL.format(f"2 * ({RIGHT}).sum(axis=1)"), 3, "the factor 1/2 is missing"),
    ("no half, and a mean", KL.format(f"2 * ({RIGHT}).sum(axis=1).mean()"), 2, "one number for each image; the factor 1/2 is missing"),
    ("the 1 outside of the sum", KL.format("0.5 * ((logvar.exp() + mu.square() - logvar).sum(axis=1) - 1)"), 3, "stands outside of the sum"),
    ("the sign", KL.format(f"-({RIGHT}).sum(axis=1)"), 2, "the sign is wrong"),
    ("sigma for sigma^2", KL.format(f"({RIGHT.replace('logvar.exp', '(0.5 * logvar).exp')}).sum(axis=1)"), 2, "sigma stands where sigma^2 belongs"),
    ("mu is squared in place", KL.format("0.5 * (logvar.exp() - 1 - logvar + mu.square_()).sum(axis=1)"), 3, "mu is changed in place"),
    ("detached", KL.format(f"({RIGHT}).sum(axis=1).detach()"), 1, "no gradient reaches mu"),
    ("nothing", KL.format("None"), 0, "still to be written"),
    ("something else", KL.format("(logvar.sin() + mu).sum(axis=1)"), 0, "compare your lines with the formula"),
]  # fmt: skip


def matches(capsys, check, answer, fair, words):
    given, said = graded(capsys, check, answer)
    assert (given, words in said, bool(said)) == (fair, True, fair < 4), said


@pytest.mark.parametrize("row", DRAWS, ids=lambda row: row[0])
def test_reparameterizations(capsys, row):
    _, code, fair, words = row
    matches(capsys, check_reparameterize, written(code), fair, words)


@pytest.mark.parametrize("row", KLS, ids=lambda row: row[0])
def test_divergences(capsys, row):
    _, code, fair, words = row
    matches(capsys, check_gaussian_kl, written(code), fair, words)


# --- task 3 -------------------------------------------------------------------------------------

NOISED = """
def q_sample(self, x_start, t, noise=None):
    if noise is None:
        noise = paddle.randn(x_start.shape)
    return {}
"""
A, B = "extract(self.sqrt_alphas_cumprod, {})", "extract(self.sqrt_one_minus_alphas_cumprod, {})"


def noised(of_image, of_noise, t="t"):
    return NOISED.format(f"{of_image.format(t)} * x_start + {of_noise.format(t)} * noise")


NOISINGS = [
    ("with what is given", noised(A, B), 4, ""),
    ("with alpha_bar", noised("extract(self.alphas_cumprod, {}).sqrt()", "(1 - extract(self.alphas_cumprod, {})).sqrt()"), 4, ""),
    ("indexed as in PyTorch", NOISED.replace("    return", """
    a = paddle.to_tensor(self.alphas_cumprod, dtype="float32")[t].view([-1, 1, 1, 1])
    return""").format("a.sqrt() * x_start + (1 - a).sqrt() * noise"), 4, ""),
    ("t + 1", noised(A, B, "t + 1"), 2, "take the numbers at t and not at t + 1"),
    ("t - 1", noised(A, B, "t - 1"), 2, "take alpha_bar[t] and not alpha_bar[t - 1]"),
    ("t - 1, at least 0", noised(A, B, "(t - 1).clip(min=0)"), 2, "alpha_bar"),
    ("no roots", noised("extract(self.alphas_cumprod, {})", "(1 - extract(self.alphas_cumprod, {}))"), 2, "the roots are missing"),
    ("one step", noised("extract(np.sqrt(1 - self.betas), {})", "extract(np.sqrt(self.betas), {})"), 2, "this is one step only"),
    ("no root of the noise", noised(A, f"{B}**2"), 3, "the root of 1 - alpha_bar is missing"),
    ("other scales", noised(f"0.7 * {A}", f"0.2 * {B}"), 1, "x_start + "),
    ("the noise is changed in place", NOISED.format(f"noise.multiply_({B.format('t')}) + {A.format('t')} * x_start"), 3, "noise is changed in place"),
    ("noise of its own", noised(A, B).replace("if noise is None", "if True"), 3, "draw only where noise is None"),
    ("uniform noise", noised(A, B).replace("randn", "rand"), 2, "the noise is uniform"),
    ("[N] over the width", NOISED.format("extract(self.sqrt_alphas_cumprod, t, 1) * x_start + extract(self.sqrt_one_minus_alphas_cumprod, t, 1) * noise"), 2, "spread over the width"),
    ("something else", NOISED.format("x_start.sin() + noise"), 0, "and compare your lines with the formula"),
]  # fmt: skip
POSTERIOR = """
def q_posterior_mean_variance(self, x_start, x_t, t):
    beta, bar = (extract(a, t) for a in (self.betas, self.alphas_cumprod))
    prev = {prev}
    mean = (prev.sqrt() * beta * x_start + (1 - beta).sqrt() * (1 - prev) * x_t) / (1 - bar)
    variance = {variance}
    return {result}
"""


def posterior(
    prev="extract(self.alphas_cumprod_prev, t)",
    variance="(1 - prev) / (1 - bar) * beta",
    result="mean, variance, variance.clip(min=1e-20).log()",
):
    return POSTERIOR.format(prev=prev, variance=variance, result=result)


GIVEN_NUMBERS = """
def q_posterior_mean_variance(self, x_start, x_t, t):
    c1, c2, v, log_v = (extract(a, {t}) for a in (
        self.posterior_mean_coef1, self.posterior_mean_coef2, self.posterior_variance,
        self.posterior_log_variance_clipped))
    return c1 * x_start + c2 * x_t, v, log_v
"""
POSTERIORS = [
    ("with what is given", GIVEN_NUMBERS.format(t="t"), 4, ""),
    ("by the formula", posterior(), 4, ""),
    ("where t is 0, one", posterior("paddle.where((t == 0).reshape([-1, 1, 1, 1]), paddle.ones_like(bar), extract(self.alphas_cumprod, (t - 1).clip(min=0)))"), 4, ""),
    ("alpha_bar_prev clipped", posterior("extract(self.alphas_cumprod, (t - 1).clip(min=0))"), 2, "Before the step t = 0, alpha_bar is 1"),
    ("alpha_bar_prev from the end", posterior("paddle.to_tensor(self.alphas_cumprod[t.numpy() - 1], dtype='float32').reshape([-1, 1, 1, 1])"), 2, "Before the step t = 0, alpha_bar is 1"),
    ("alpha_bar[t - 1] stops", posterior("extract(self.alphas_cumprod, t - 1)"), 2, "Before the step t = 0, alpha_bar is 1"),
    ("t + 1", GIVEN_NUMBERS.format(t="t + 1"), 2, "take the numbers at t and not at t + 1"),
    ("alpha_bar for alpha_bar_prev", posterior("bar"), 2, "in the mean, alpha_bar_t stands where alpha_bar_{t-1} belongs"),
    ("the variance is beta", posterior(variance="beta"), 3, "the variance is beta_t"),
    ("sigma for the variance", posterior(variance="((1 - prev) / (1 - bar) * beta).sqrt()"), 3, "standard deviation"),
    ("the log is infinite", posterior(result="mean, variance, variance.log()"), 3, "the log variance at t = 0 is infinite"),
    ("two results", posterior(result="mean, variance"), 3, "must return three things"),
    ("the mean alone", posterior(result="mean"), 2, "must return three things"),
    ("coefficients exchanged", GIVEN_NUMBERS.format(t="t").replace("c1, c2", "c2, c1"), 3, "are exchanged"),
]  # fmt: skip
STEP = """
def p_sample(self, model, x_t, t, noise=None):
    if noise is None:
        noise = paddle.randn(x_t.shape)
    mean, variance, log_variance, x_start = self.p_mean_variance(model, x_t, t)
    mask = (t > 0).astype("float32").reshape([-1, 1, 1, 1])
    return {}
"""
PAPER = """
def p_sample(self, model, x_t, t, noise=None):
    noise = paddle.randn(x_t.shape) if noise is None else noise
    beta, bar = extract(self.betas, t), extract(self.alphas_cumprod, t)
    eps = {eps}
    mean = (x_t - beta / (1 - bar).sqrt() * eps) / (1 - beta).sqrt()
    sigma = {sigma}
    return mean + (t > 0).astype("float32").reshape([-1, 1, 1, 1]) * sigma * noise
"""
ANY_EPS = (
    'model(x_t, t) if self.prediction == "eps" else '
    "bar.sqrt() * model(x_t, t) + (1 - bar).sqrt() * x_t"
)
CLIPPED = """
def p_sample(self, model, x_t, t, noise=None):
    noise = paddle.randn(x_t.shape) if noise is None else noise
    x_0 = self.predict_start(model, x_t, t)
    mean, variance, _ = self.q_posterior_mean_variance(x_0, x_t, t)
    return mean + variance.sqrt() * noise
"""
STEPS = [
    ("with the log variance", STEP.format("mean + mask * (0.5 * log_variance).exp() * noise"), 4, ""),
    ("the variance is 0 at t = 0", CLIPPED, 4, ""),
    ("paddle.where", STEP.format("paddle.where(mask > 0, mean + variance.sqrt() * noise, mean)"), 4, ""),
    ("image by image", STEP.format("paddle.stack([m if s == 0 else m + v.sqrt() * e for m, v, e, s in zip(mean, variance, noise, t.tolist())])"), 4, ""),
    ("sigma^2 is beta, as in the paper", STEP.format("mean + mask * extract(self.betas, t).sqrt() * noise"), 3, "the paper's other choice"),
    ("sigma^2 is beta at t = 0, too", STEP.format("mean + extract(self.betas, t).sqrt() * noise"), 2, "noise was added at t = 0"),
    ("the paper's mean, not clipped", PAPER.format(eps=ANY_EPS, sigma="extract(self.posterior_variance, t).sqrt()"), 3, "is not clipped to [-1, 1]"),
    ("the paper's mean, not clipped, and beta", PAPER.format(eps=ANY_EPS, sigma="beta.sqrt()"), 3, "other choice; asked for was the posterior's variance; the estimate of x_start is not clipped"),
    ("the paper's mean, and always the noise", PAPER.format(eps="model(x_t, t)", sigma="extract(self.posterior_variance, t).sqrt()"), 2, "it stands for v"),
    ("the paper's algorithm to the letter", PAPER.format(eps="model(x_t, t)", sigma="beta.sqrt()"), 2, "it stands for v"),
    ("t + 1", STEP.format("mean + mask * (0.5 * log_variance).exp() * noise").replace("x_t, t)", "x_t, t + 1)"), 2, "take the numbers at t and not at t + 1"),
    ("softplus", STEP.format("mean + mask * F.softplus(log_variance) * noise"), 2, "argument of a softplus"),
    ("softplus at t = 0, too", STEP.format("mean + F.softplus(log_variance) * noise"), 1, "argument of a softplus"),
    ("noise at t = 0", STEP.format("mean + (0.5 * log_variance).exp() * noise"), 2, "noise was added at t = 0"),
    ("the first image decides", STEP.format("mean + float(t[0] > 0) * (0.5 * log_variance).exp() * noise"), 3, "one image decides"),
    ("if t > 0", STEP.format("mean + (0.5 * log_variance).exp() * noise if t > 0 else mean"), 0, "each image has its own"),
    ("the variance for sigma", STEP.format("mean + mask * log_variance.exp() * noise"), 2, "the variance stands where sigma belongs"),
    ("no noise", STEP.format("mean"), 1, "no noise was added"),
    ("x_start", STEP.format("x_start"), 1, "this is the estimate of x_start"),
    ("uniform noise", STEP.format("mean + mask * (0.5 * log_variance).exp() * noise").replace("randn", "rand"), 2, "the noise is uniform"),
    ("noise of its own", STEP.format("mean + mask * (0.5 * log_variance).exp() * paddle.randn(x_t.shape)"), 3, "draw only where noise is None"),
    ("half of the noise", STEP.format("mean + 0.5 * mask * (0.5 * log_variance).exp() * noise"), 1, "the mean + "),
]  # fmt: skip


def with_method(code):
    """The diffusion of the lesson with a method of the student's."""
    method = written(code)
    return type("Answer", (GaussianDiffusion,), {method.__name__: method})


@pytest.mark.parametrize("check, row", [
    *((check_q_sample, row) for row in NOISINGS),
    *((check_q_posterior_mean_variance, row) for row in POSTERIORS),
    *((check_p_sample, row) for row in STEPS),
], ids=lambda x: x[0] if isinstance(x, tuple) else x.__name__)  # fmt: skip
def test_diffusions(capsys, check, row):
    _, code, fair, words = row
    matches(capsys, check, with_method(code), fair, words)


# --- all ----------------------------------------------------------------------------------------


def test_the_checks_leave_chance_and_networks_as_they_were():
    paddle.seed(3)
    np.random.seed(3)
    for check, answer in [
        (check_reparameterize, written(DRAWS[0][1])),
        (check_q_sample, GaussianDiffusion),
        (check_encoder, written(LAYERS)),
    ]:
        marks(4, check, answer, SEEDS)
    found = paddle.randn([3]).numpy(), np.random.random(3)
    paddle.seed(3)
    np.random.seed(3)
    np.testing.assert_array_equal(found[0], paddle.randn([3]).numpy())
    np.testing.assert_array_equal(found[1], np.random.random(3))
