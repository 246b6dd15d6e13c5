import numpy as np
import paddle
import pytest
from genbook.evaluation.metrics import elbo
from genbook.training.loop import MovingAverage
from genbook.vae import VAE
from scipy import stats

NODE = np.linspace(-8, 8, 4001)  # a fine grid, since the decoder has kinks
WEIGHT = stats.norm.pdf(NODE) / stats.norm.pdf(NODE).sum()  # of N(0, 1) at the nodes
IMAGES = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])  # all black and white images of two pixels


def two_pixel_vae():
    """A VAE for images of two pixels with two labels and a code of one dimension."""
    paddle.seed(3)
    model = VAE((1, 1, 2), hidden=(8,), latent_dim=1, classes=2)
    for weight in model.parameters():
        weight.set_value(0.7 * paddle.randn(weight.shape))
    model.to_logvar.weight.set_value(0.1 * model.to_logvar.weight)
    model.to_logvar.bias.set_value(paddle.zeros([1]))
    return model


def copies(array, n, dtype):
    return paddle.to_tensor(np.repeat(np.asarray(array)[None], n, axis=0), dtype=dtype)


@paddle.no_grad()
def likelihood(model, z, label):
    """p(x | z, y) of the four images at codes [M]: [M, 4]."""
    codes = paddle.to_tensor(z[:, None], dtype="float32")
    white = model.decode(codes, copies(label, len(z), "int64")).numpy().reshape(-1, 1, 2)
    return stats.bernoulli.pmf(IMAGES, white.astype(np.float64)).prod(axis=2)


@pytest.mark.checks("def-weight-average", "average of the weights of all steps")
def test_weight_average(agree):
    """The sum over 40 steps, each weighed by its age, once the start is behind."""
    rng = np.random.default_rng(0)
    model, alpha = paddle.nn.Linear(3, 2), 0.995
    average = MovingAverage(model, alpha)
    average.updates = 10_000
    past = [model.weight.numpy().astype(float)]
    for _ in range(40):
        past.append(rng.standard_normal((3, 2)))
        model.weight.set_value(past[-1].astype("float32"))
        average.update(model)
    weighted = sum((1 - alpha) * alpha**age * past[-1 - age] for age in range(40))
    agree(average.state["weight"], weighted + alpha**40 * past[0], 1e-5)


@paddle.no_grad()
@pytest.mark.checks("eq-conditional-elbo", "bound on the evidence given a label")
def test_conditional_elbo(agree):
    """Quadrature over the code; 20,000 draws agree, the evidence is higher, and it is the logarithm
    of the mean weight, for each label."""
    paddle.seed(0)
    model = two_pixel_vae()
    for label in (0, 1):
        evidence = np.log(WEIGHT @ likelihood(model, NODE, label))  # [4]
        for i, image in enumerate(IMAGES):
            x, y = copies(image.reshape(1, 1, 2), 20_000, "float32"), copies(label, 20_000, "int64")
            mu, logvar = (row[0, 0].item() for row in model.encode(x[:1], y[:1]))
            sigma = np.exp(logvar / 2)
            z = mu + sigma * NODE
            log_ratio = stats.norm.logpdf(z, mu, sigma) - stats.norm.logpdf(z)
            chance = likelihood(model, z, label)[:, i]
            agree(np.log(WEIGHT @ (chance / np.exp(log_ratio))), evidence[i], 1e-5)
            bound = WEIGHT @ (np.log(chance) - log_ratio)
            agree.in_mean(elbo(model, x, labels=y), bound)
            agree(max(0.0, bound - evidence[i]), 0.0, 1e-6)


@paddle.no_grad()
@pytest.mark.checks("eq-conditional-mixture", "distribution of images whose labels are drawn first")
def test_conditional_mixture(agree):
    """Shares of the four images of two pixels among 100,000 draws of label, code and pixels."""
    rng = np.random.default_rng(0)
    model, shares = two_pixel_vae(), np.array([0.3, 0.7])
    mixture = sum(share * (WEIGHT @ likelihood(model, NODE, y)) for y, share in enumerate(shares))
    labels = (rng.random(100_000) < shares[1]).astype(np.int64)
    z = paddle.to_tensor(rng.standard_normal((100_000, 1)), dtype="float32")
    white = model.decode(z, paddle.to_tensor(labels)).numpy().reshape(-1, 2)
    drawn = rng.random((100_000, 2)) < white
    is_image = (drawn[:, None] == IMAGES).all(axis=2)  # [100000, 4]
    agree.in_mean(is_image, mixture)
