import itertools
import math

import numpy as np
import paddle
import pytest
import sympy
from genbook.tokens import TokenNetwork, hide, masked_bound, sample_by_unmasking, token_nll
from genbook.vqvae import Codebook, straight_through
from scipy import stats
from scipy.integrate import quad
from scipy.optimize import minimize

CODES = np.array([-1.5, -0.5, 0.5, 1.5])
BORDERS = (CODES[1:] + CODES[:-1]) / 2


def chain(levels, size):
    """q(z_t | z_0) for each t from products of one-step matrices [size + 1, size + 1]."""
    eye, to_mask = np.eye(size + 1), np.zeros((size + 1, size + 1))
    to_mask[:, size] = 1
    kept = levels[1:] / levels[:-1]
    steps = [a * eye + (1 - a) * to_mask for a in kept]
    return steps, [eye, *itertools.accumulate(steps, np.matmul)]


LEVELS = np.array([1, 0.85, 0.5, 0.2, 0])  # alpha-bar, of a schedule that is not linear


def a_prior(causal):
    """A network with weights so large that its tokens depend on each other."""
    paddle.seed(0)
    model = TokenNetwork(3, (2, 2), 2, causal, width=8, blocks=2)
    for parameter in model.parameters():
        parameter.set_value(parameter + 0.5 * paddle.randn(parameter.shape))
    model.eval()
    return model


def all_codes(size=3, length=4):
    return np.array(list(itertools.product(range(size), repeat=length)))


@pytest.mark.checks("eq-mean-is-best", "the mean of the vectors that chose an entry is best")
def test_mean_is_best(agree):
    """A codebook without memory moves to the minimum that SciPy finds; and both sides."""
    rng = np.random.default_rng(0)
    h, e = rng.normal(size=(40, 3)), rng.normal(size=3)
    found = minimize(lambda e: ((h - e) ** 2).sum(), e, tol=1e-12).x
    book = Codebook(1, 3, decay=0.0, restart=0.0)
    book.update(paddle.to_tensor(h, dtype="float32"), paddle.zeros([40], dtype="int64"))
    agree(book.vectors.numpy()[0], found, 1e-5)
    spread = ((h - h.mean(axis=0)) ** 2).sum()
    agree(((h - e) ** 2).sum(), spread + 40 * ((h.mean(axis=0) - e) ** 2).sum(), 1e-9)


@pytest.mark.checks("def-straight-through", "the straight-through estimator")
def test_straight_through(agree):
    """Paddle's gradient of a cubic through it, against the cubic's derivative at the entry."""
    h = paddle.to_tensor([[0.3, -0.9]], stop_gradient=False)
    e = paddle.to_tensor([[0.5, -0.5]])
    passed = straight_through(h, e)
    agree(passed, e, 1e-6)
    (passed**3).sum().backward()
    agree(h.grad, 3 * e**2, 1e-6)


def nearest(h):
    return CODES[np.searchsorted(BORDERS, h)]


def smoothed(loss, m, s):
    """The mean of loss(entry nearest to m + s * noise), by quadrature."""
    edges = [m - 9 * s, *[b for b in BORDERS if abs(b - m) < 9 * s], m + 9 * s]
    return sum(
        quad(lambda h: loss(nearest(h)) * stats.norm.pdf(h, m, s), a, b)[0]
        for a, b in itertools.pairwise(edges)
    )


@pytest.mark.checks("eq-quantised-slope", "the true slope of a mean over rounded numbers")
def test_quantised_slope(agree):
    """Differences of a mean that is computed by quadrature, for a loss that is no square."""
    loss = lambda z: np.exp(z) - z**3  # noqa: E731
    for m, s in ((-0.3, 0.1), (0.45, 0.3), (1.2, 2.0)):
        slope = (smoothed(loss, m + 1e-4, s) - smoothed(loss, m - 1e-4, s)) / 2e-4
        jumps = loss(CODES[1:]) - loss(CODES[:-1])
        agree((jumps * stats.norm.pdf(BORDERS, m, s)).sum(), slope, 1e-6)


@pytest.mark.checks("eq-straight-through-sum", "straight-through is right from entry to entry")
def test_straight_through_sum(agree):
    """Any square with two entries, by SymPy: the areas of the two halves of the way."""
    z, a, b, c, lower, upper = sympy.symbols("z a b c e_1 e_2")
    loss = a * z**2 + b * z + c
    slope = sympy.diff(loss, z)
    half = (upper - lower) / 2
    by_straight_through = half * (slope.subs(z, lower) + slope.subs(z, upper))
    agree.exactly(by_straight_through, loss.subs(z, upper) - loss.subs(z, lower))


@pytest.mark.checks("eq-codebook-average", "the moving average is a step towards the mean")
def test_codebook_average(agree):
    """Three updates of the lesson, and the step written with counts in plain NumPy."""
    rng = np.random.default_rng(1)
    paddle.seed(0)
    book = Codebook(3, 2, decay=0.9, restart=0.0)
    e, n = book.vectors.numpy().astype(float), np.ones(3)
    for _ in range(3):
        h, tokens = rng.normal(size=(20, 2)), rng.integers(0, 3, 20)
        book.update(paddle.to_tensor(h, dtype="float32"), paddle.to_tensor(tokens))
        chose = np.bincount(tokens, minlength=3)
        means = np.array([h[tokens == k].mean(axis=0) for k in range(3)])
        n = 0.9 * n + 0.1 * chose
        e = e + (0.1 * chose / n)[:, np.newaxis] * (means - e)
        agree(book.vectors, e, 1e-5)


@pytest.mark.checks("eq-code-bound", "what a code says about the evidence of its image")
def test_code_bound(agree):
    """Eight codes of an image: the logarithm of the whole sum, and the gap by Bayes' rule."""
    rng = np.random.default_rng(2)
    prior, likelihood = rng.dirichlet(np.ones(8)), rng.random(8)
    evidence = prior @ likelihood
    posterior = prior * likelihood / evidence
    bound = np.log(likelihood) + np.log(prior)
    agree(np.log(evidence) - bound, -np.log(posterior), 1e-12)
    assert (bound < np.log(evidence)).all()


@pytest.mark.checks("eq-token-chain", "a prior in order is a distribution over all codes")
def test_token_chain(agree):
    """All 81 codes of a small network have probabilities with the sum 1."""
    codes, model = all_codes(), a_prior(causal=True)
    labels = paddle.ones([len(codes)], dtype="int64")
    nll = token_nll(model, paddle.to_tensor(codes), labels).numpy().sum(axis=1)
    agree(np.exp(-nll).sum(), 1.0, 1e-5)


@pytest.mark.checks("eq-token-posterior", "a masked token one step earlier")
def test_token_posterior(agree):
    """Bayes' rule with the matrices of the chain, for a schedule that is not linear."""
    steps, until = chain(LEVELS, 3)
    for t in range(1, len(LEVELS)):
        for start in range(3):
            joint = until[t - 1][start] * steps[t - 1][:, 3]  # z_{t-1}, then a mask
            shown = (LEVELS[t - 1] - LEVELS[t]) / (1 - LEVELS[t])
            expected = np.zeros(4)
            expected[[start, 3]] = shown, 1 - shown
            agree(joint / joint.sum(), expected, 1e-12)


@pytest.mark.checks("eq-token-kl", "a masked token's term of the bound is a cross-entropy")
def test_token_kl(agree):
    """The divergence of both distributions over all four states, summed."""
    steps, until = chain(LEVELS, 3)
    said = np.array([0.2, 0.7, 0.1])  # what the network says
    for t in range(2, len(LEVELS)):
        shown = (LEVELS[t - 1] - LEVELS[t]) / (1 - LEVELS[t])
        q = until[t - 1][0] * steps[t - 1][:, 3]
        q /= q.sum()
        p = np.append(shown * said, 1 - shown)
        there = q > 0
        kl = (q[there] * np.log(q[there] / p[there])).sum()
        agree(-shown * np.log(said[0]), kl, 1e-12)


def surprises(model, code, label):
    """What the network says of each token of a code [L], for each set of hidden places."""
    length = len(code)
    sets = np.array(list(itertools.product([False, True], repeat=length)))
    tokens = paddle.to_tensor(np.tile(code, (len(sets), 1)))
    labels = paddle.full([len(sets)], label, dtype="int64")
    logits = model(hide(tokens, paddle.to_tensor(sets), model.size), labels)
    logp = paddle.nn.functional.log_softmax(logits, axis=-1).numpy()
    nll = -logp[:, np.arange(length), code]
    return {tuple(hidden): row for hidden, row in zip(sets.tolist(), nll, strict=True)}


@pytest.mark.checks("eq-masked-bound", "the bound with T steps")
def test_masked_bound(agree):
    """All 16 sets of hidden tokens, weighted, against many draws of the lesson."""
    model, code = a_prior(causal=False), np.array([2, 0, 1, 1])
    found = surprises(model, code, 1)
    for steps in (1, 3):
        exact = 0.0
        for t in range(1, steps + 1):
            for hidden, nll in found.items():
                k = sum(hidden)
                chance = (t / steps) ** k * (1 - t / steps) ** (4 - k)
                exact += chance / t * nll[list(hidden)].sum()
        tokens = paddle.to_tensor(np.tile(code, (40_000, 1)))
        labels = paddle.ones([40_000], dtype="int64")
        with paddle.no_grad():
            draws = masked_bound(model, tokens, labels, steps).numpy()
        if steps == 1:  # nothing is random: all are hidden
            agree(draws, np.full_like(draws, exact), 1e-4)
        else:
            agree.in_mean(draws, exact)


def level_density(u, k):
    """The chance that just k places of four are masked, a certain k, times the weight 1 / u."""
    return u ** (k - 1) * (1 - u) ** (4 - k)


@pytest.mark.checks("eq-any-order", "with many steps the bound is a mean over all orders")
def test_any_order(agree):
    """Each of the 24 orders, token by token; the integral over levels; draws of the lesson."""
    model, code = a_prior(causal=False), np.array([2, 0, 1, 1])
    found = surprises(model, code, 1)
    lengths = []
    for order in itertools.permutations(range(4)):
        hidden, total = [True] * 4, 0.0
        for i in order:
            total += found[tuple(hidden)][i]
            hidden[i] = False
        lengths.append(total)
    by_level = sum(
        nll[list(hidden)].sum() * quad(level_density, 0, 1, (sum(hidden),))[0]
        for hidden, nll in found.items()
        if any(hidden)
    )
    by_count = sum(
        nll[list(hidden)].mean() / math.comb(4, sum(hidden))
        for hidden, nll in found.items()
        if any(hidden)
    )
    agree(np.array([by_level, by_count]), np.full(2, np.mean(lengths)), 1e-5)
    tokens = paddle.to_tensor(np.tile(code, (40_000, 1)))
    with paddle.no_grad():
        draws = masked_bound(model, tokens, paddle.ones([40_000], dtype="int64"))
    agree.in_mean(draws, np.mean(lengths))


@pytest.mark.checks("eq-same-step", "two tokens are revealed in one step")
def test_same_step(agree):
    """20,000 runs of the sampler with a network that says at which step it was asked."""

    class Clock:
        """All logits on the number of the call, so that a token is the step of its reveal."""

        size, length, asked = 4, 2, 0

        def __call__(self, tokens, labels):
            logits = paddle.full([*tokens.shape, self.size], -1e9)
            logits[:, :, self.asked] = 0.0
            self.asked += 1
            return logits

    paddle.seed(0)
    tokens = sample_by_unmasking(Clock(), paddle.zeros([20_000], dtype="int64"), 4).numpy()
    agree.in_mean((tokens[:, 0] == tokens[:, 1]).astype(float), 1 / 4)
    agree(sum((a - b) ** 2 for a, b in itertools.pairwise([1, 0.75, 0.5, 0.25, 0])), 0.25, 1e-12)


@pytest.mark.checks("eq-together-cost", "what it costs to draw two tokens at once")
def test_together_cost(agree):
    """A table of nine pairs: the mean code lengths of both ways, from counts of outcomes."""
    joint = np.random.default_rng(3).dirichlet(np.ones(9)).reshape(3, 3)
    first, second = joint.sum(axis=1), joint.sum(axis=0)
    at_once = sum(
        joint[a, b] * (-np.log(first[a]) - np.log(second[b])) for a in range(3) for b in range(3)
    )
    in_turn = sum(
        joint[a, b] * (-np.log(first[a]) - np.log(joint[a, b] / first[a]))
        for a in range(3)
        for b in range(3)
    )
    information = stats.entropy(joint.ravel(), np.outer(first, second).ravel())
    agree(at_once - in_turn, information, 1e-12)
