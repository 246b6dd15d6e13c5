import numpy as np
from quadrature import integral
import paddle
import pytest
import sympy as sp
from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule, guided, hide_labels
from scipy import stats
from scipy.integrate import quad

LEVELS = [0.02, 0.3, 0.8, 0.95]  # alpha-bar
CLASSES = [(0.2, -1.0, 0.3), (0.5, 0.4, 0.6), (0.3, 1.5, 0.2)]  # weight, mean, deviation of x_0
POINTS = np.linspace(-2.5, 2.5, 11)


def joint(x_0, x_t, level, of):
    """The density of clean and noisy value of one class, times the weight of the class."""
    weight, mean, deviation = of
    kernel = stats.norm.pdf(x_t, np.sqrt(level) * x_0, np.sqrt(1 - level))
    return weight * stats.norm.pdf(x_0, mean, deviation) * kernel


def evidence(x_t, level, of):
    return integral(lambda x_0: joint(x_0, x_t, level, of))


def log_evidence(x_t, level, chosen):
    return np.log(sum(evidence(x_t, level, of) for of in chosen))


def slope(f, x, step=1e-4):
    return (f(x + step) - f(x - step)) / (2 * step)


@pytest.mark.checks("eq-unlabelled-mean", "mean without a label from those with labels")
def test_unlabelled_mean(agree):
    """Quadrature over three normal classes, against the closed posterior mean of each class."""
    for level in LEVELS:
        for x_t in POINTS[::5]:
            parts = [evidence(x_t, level, of) for of in CLASSES]
            direct = sum(integral(lambda x_0: x_0 * joint(x_0, x_t, level, of)) for of in CLASSES)
            means = []
            for _, mean, deviation in CLASSES:  # precisions add
                a, b = 1 / deviation**2, level / (1 - level)
                means.append((a * mean + b * x_t / np.sqrt(level)) / (a + b))
            mixed = np.dot(parts, means) / sum(parts)
            agree(direct / sum(parts), mixed, 1e-7)


@pytest.mark.checks("eq-hidden-loss", "loss with hidden labels")
def test_hidden_loss(agree):
    """Monte Carlo: 200,000 labels hidden by the code, against a count of all cases; two pixels."""
    paddle.seed(0)
    rng = np.random.default_rng(0)
    share, unknown = 0.3, 3
    probability = np.array([0.5, 0.3, 0.2])
    centre = np.array([[-1.0, 0.3], [0.2, -0.4], [2.0, 1.0]])
    answer = np.array([[-0.7, 0.1], [0.5, -0.5], [1.0, 1.2], [0.1, 0.2]])
    y = rng.choice(3, 200_000, p=probability)
    v = centre[y] + rng.choice([-0.5, 0.5], (len(y), 2))
    shown = hide_labels(paddle.to_tensor(y), unknown, share).numpy()
    told = (probability * (((answer[:3] - centre) ** 2).sum(axis=1) + 2 * 0.25)).sum() / 2
    untold = (probability * (((answer[3] - centre) ** 2).sum(axis=1) + 2 * 0.25)).sum() / 2
    loss = ((answer[shown] - v) ** 2).mean(axis=1)
    agree.in_mean(loss, np.array((1 - share) * told + share * untold))


@pytest.mark.checks("eq-bayes-score", "score of a class from the score of all")
def test_bayes_score(agree):
    """Symbolic differentiation of the score of a class, and finite differences by quadrature."""
    level, of = 0.6, CLASSES[1]
    x = sp.Symbol("x")
    mean, variance = np.sqrt(level) * of[1], level * of[2] ** 2 + 1 - level
    exact = sp.lambdify(x, sp.diff(-((x - mean) ** 2) / (2 * variance), x))
    for x_t in POINTS[::2]:
        of_all = slope(lambda u: log_evidence(u, level, CLASSES), x_t)
        classifier = slope(
            lambda u: log_evidence(u, level, [of]) - log_evidence(u, level, CLASSES), x_t
        )
        agree(of_all + classifier, exact(x_t), 1e-6)


@pytest.mark.checks("eq-classifier-shift", "a normal density, tilted")
def test_classifier_shift(agree):
    """Mean and variance of the tilted density by quadrature."""
    for mean, deviation, g in ((0.3, 0.5, 1.2), (-1.0, 0.1, -6.0), (2.0, 1.5, 0.7)):

        def tilted(x, power=0):
            return x**power * stats.norm.pdf(x, mean, deviation) * np.exp(g * (x - mean))

        shifted = mean + deviation**2 * g
        ends = shifted - 12 * deviation, shifted + 12 * deviation
        mass, first, second = (quad(tilted, *ends, args=(k,), epsabs=1e-13)[0] for k in range(3))
        agree(first / mass, shifted, 1e-8)
        agree(second / mass - (first / mass) ** 2, deviation**2, 1e-8)


@pytest.mark.checks("eq-classifier-guidance", "noise guided by a classifier")
def test_classifier_guidance(agree):
    r"""Quadrature; for $\gamma = 1$ it must be the noise of the class, which has a closed form, and
    for 0 and 2.5 that of the density of all times a power of the classifier."""
    for level in (0.3, 0.8):
        for of in CLASSES[:2]:
            for x_t in POINTS[::4]:
                noise = np.sqrt(1 - level)
                weight = sum(evidence(x_t, level, c) for c in CLASSES)
                mean = (
                    sum(
                        integral(
                            lambda x_0: (
                                (x_t - np.sqrt(level) * x_0) / noise * joint(x_0, x_t, level, c)
                            )
                        )
                        for c in CLASSES
                    )
                    / weight
                )
                gradient = slope(
                    lambda u: log_evidence(u, level, [of]) - log_evidence(u, level, CLASSES), x_t
                )
                variance = level * of[2] ** 2 + 1 - level
                closed = noise * (x_t - np.sqrt(level) * of[1]) / variance
                agree(mean - noise * gradient, closed, 1e-6)
                for gamma in (0, 2.5):

                    def tilted(u, gamma=gamma, of=of, level=level):
                        every = log_evidence(u, level, CLASSES)
                        return (1 - gamma) * every + gamma * log_evidence(u, level, [of])

                    agree(mean - gamma * noise * gradient, -noise * slope(tilted, x_t), 1e-6)


def two_networks(prediction, diffusion):
    """A network that knows x_0 = 0.4 with a label and -0.9 without, and says so in `prediction`."""

    def network(x_t, t, labels=None):
        x_0 = paddle.full(x_t.shape, -0.9 if labels is None else 0.4)
        noise = diffusion.predict_noise_from_start(x_t, t, x_0)
        return noise if prediction == "eps" else diffusion.target(x_0, t, noise)

    return network


def guided_start(prediction, x_t, t, scale):
    """The clean image that a guided network of either kind stands for, not clipped."""
    diffusion = GaussianDiffusion(cosine_beta_schedule(1000), prediction, clip=1e6)
    model = guided(two_networks(prediction, diffusion), paddle.to_tensor([0, 0, 0]), scale)
    return diffusion.predict_start(model, x_t, t).numpy().ravel()


X_T = paddle.to_tensor([0.3, -1.2, 2.0]).reshape([-1, 1, 1, 1])
T = paddle.to_tensor([100, 500, 800])


@pytest.mark.checks("eq-guided-noise", "guided noise")
def test_guided_noise(agree):
    """By hand: the noise of a known image is linear in the image, which must move on by $w$."""
    for scale in (0.0, 0.5, 4.0):
        agree(guided_start("eps", X_T, T, scale), [0.4 + scale * 1.3] * 3, 1e-4)


@pytest.mark.checks("eq-v-from-noise", "$v$ from the noise")
def test_v_from_noise(agree):
    """The code's target, made from image and noise, at four noise levels."""
    diffusion = GaussianDiffusion(cosine_beta_schedule(1000), "v")
    t = paddle.to_tensor([50, 300, 700, 900])
    x_0, noise = (
        paddle.to_tensor(numbers).reshape([-1, 1, 1, 1])
        for numbers in ([0.2, -0.7, 0.9, 0.1], [1.3, -0.4, 0.6, -2.0])
    )
    x_t = diffusion.q_sample(x_0, t, noise).numpy().ravel().astype(float)
    level = diffusion.alphas_cumprod[t.numpy()]
    v, e = diffusion.target(x_0, t, noise).numpy().ravel(), noise.numpy().ravel()
    a, b = np.sqrt(level), np.sqrt(1 - level)
    agree(v, a * e - b * (x_t - b * e) / a, 1e-5)
    agree(v, 1 / a * e - b / a * x_t, 1e-5)


@pytest.mark.checks("eq-guided-v", "guided $v$")
def test_guided_v(agree):
    """By hand, as for the noise: the image that it stands for must move on by $w$. And both forms,
    against the $v$ of that image."""
    diffusion = GaussianDiffusion(cosine_beta_schedule(1000), "v")
    level = diffusion.alphas_cumprod[T.numpy()].reshape(-1, 1, 1, 1)
    k, c = 1 / np.sqrt(level), -np.sqrt(1 - level) / np.sqrt(level) * X_T.numpy()

    def noise_and_v(image):
        x_0 = paddle.full(X_T.shape, image)
        noise = diffusion.predict_noise_from_start(X_T, T, x_0)
        return noise.numpy().astype(float), diffusion.target(x_0, T, noise).numpy().astype(float)

    (e_label, v_label), (e_none, v_none) = noise_and_v(0.4), noise_and_v(-0.9)
    for w in (0.0, 0.5, 4.0):
        agree(guided_start("v", X_T, T, w), [0.4 + w * 1.3] * 3, 1e-4)
        moved = noise_and_v(0.4 + w * 1.3)[1]
        agree(k * ((1 + w) * e_label - w * e_none) + c, moved, 1e-4)
        agree((1 + w) * v_label - w * v_none, moved, 1e-4)


@pytest.mark.checks("eq-guided-density", "density behind the guided score")
def test_guided_density(agree):
    """Finite differences of both logarithms by quadrature, against the scores' combination."""
    level, of = 0.5, CLASSES[2]
    for w in (0.5, 3.0):
        for x_t in POINTS[::4]:
            label = slope(lambda u: log_evidence(u, level, [of]), x_t)
            none = slope(lambda u: log_evidence(u, level, CLASSES), x_t)

            def product(u):
                every = log_evidence(u, level, CLASSES)
                return every + (1 + w) * (log_evidence(u, level, [of]) - every)

            def quotient(u):
                return (1 + w) * log_evidence(u, level, [of]) - w * log_evidence(u, level, CLASSES)

            for density in (quotient, product):
                agree(label + w * (label - none), slope(density, x_t), 1e-6)


@pytest.mark.checks("eq-toy-scores", "scores of two classes of numbers")
def test_toy_scores(agree):
    """Finite differences of densities that were integrated over the clean number."""
    classes = [(0.5, 1.0, 0.5), (0.5, -1.0, 0.5)]
    for level in (0.1, 0.5, 0.9):
        for x_t in POINTS[::2]:
            variance, centre = 0.25 * level + 1 - level, np.sqrt(level)
            for y, of in ((1, classes[:1]), (-1, classes[1:])):
                agree(
                    slope(lambda u, of=of: log_evidence(u, level, of), x_t),
                    -(x_t - y * centre) / variance,
                    1e-6,
                )
            agree(
                slope(lambda u: log_evidence(u, level, classes), x_t),
                -(x_t - np.tanh(x_t * centre / variance) * centre) / variance,
                1e-6,
            )


@pytest.mark.checks("eq-pair-distance", "distance of two images of one class")
def test_pair_distance(agree):
    """All ordered pairs of nine vectors, a vector with itself included."""
    vectors = np.random.default_rng(0).normal(size=(9, 4))
    pairs = [((a - b) ** 2).sum() for a in vectors for b in vectors]
    agree(np.mean(pairs), 2 * vectors.var(axis=0).sum(), 1e-12)


@pytest.mark.checks("eq-sharpened-normal", "sharpened normal density")
def test_sharpened_normal(agree):
    """Mean and variance by quadrature, for three scales."""
    m, s = 0.8, 0.6
    for w in (0.5, 2.0, 7.0):

        def density(x, power=0):
            return x**power * stats.norm.pdf(x, m, s) ** (1 + w) / stats.norm.pdf(x) ** w

        mass, first, second = (
            quad(density, -8, 8, args=(k,), epsabs=1e-14, points=[m])[0] for k in range(3)
        )
        precision = (1 + w) / s**2 - w
        agree(first / mass, (1 + w) * m / s**2 / precision, 1e-7)
        agree(second / mass - (first / mass) ** 2, 1 / precision, 1e-7)
