import numpy as np
import paddle
import pytest
import sympy as sp
from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule
from genbook.transformer import DiT, DiTBlock, SelfAttention, attention, places
from scipy import stats

RNG = np.random.default_rng(0)


def tensor(x):
    return paddle.to_tensor(x, dtype="float64")


@pytest.mark.checks("eq-denoiser-lookup", "best denoiser of the training images as a look-up")
def test_denoiser_lookup(agree):
    """The code's attention, against Bayes' rule with SciPy's normal densities; three dimensions."""
    images = RNG.uniform(-1, 1, (6, 3))
    diffusion = GaussianDiffusion(cosine_beta_schedule(10))
    for a_bar in diffusion.alphas_cumprod[[2, 5, 8]]:
        x_t = np.sqrt(a_bar) * images[0] + np.sqrt(1 - a_bar) * RNG.standard_normal(3)
        cov = (1 - a_bar) * np.eye(3)
        p = [stats.multivariate_normal.pdf(x_t, np.sqrt(a_bar) * x, cov) for x in images]
        bayes = p / np.sum(p) @ images
        scores = x_t @ images.T - np.sqrt(a_bar) / 2 * (images**2).sum(axis=1)
        scores *= np.sqrt(a_bar) / (1 - a_bar)
        # a query (1) of length 1 and the scores as keys: what the softmax makes of them
        found, weights = attention(*map(tensor, ([[1.0]], scores[:, np.newaxis], images)))
        agree(weights[0], p / np.sum(p), 1e-9)
        agree(found[0], bayes, 1e-9)


@pytest.mark.checks("eq-dot-variance", "variance of the inner product of query and key")
def test_dot_variance(agree):
    """200,000 pairs of vectors, whose entries are uniform, of three lengths."""
    for d in (2, 8, 32):
        q, k = RNG.uniform(-(3**0.5), 3**0.5, (2, 200_000, d))
        agree.in_mean((q * k).sum(axis=1) ** 2, float(d))


@pytest.mark.checks("eq-softmax-slope", "derivative of the softmax")
def test_softmax_slope(agree):
    """Differences of the code's weights in each score."""
    s = np.array([0.3, -1.2, 0.8, 0.1])

    def weights(s):
        return attention(*map(tensor, ([[1.0]], s[:, np.newaxis], s[:, np.newaxis])))[1][0].numpy()

    a, step = weights(s), 1e-5
    for k in range(4):
        e = step * np.eye(4)[k]
        slope = (weights(s + e) - weights(s - e)) / (2 * step)
        agree(a * (np.eye(4)[k] - a[k]), slope, 1e-8)


@pytest.mark.checks("eq-attention-permute", "attention of reordered tokens")
def test_attention_permute(agree):
    """The code's layer on tokens in another order, against its reordered answer."""
    paddle.seed(0)
    layer, x = SelfAttention(12, 3), paddle.randn([1, 7, 12])
    P = np.eye(7)[RNG.permutation(7)].astype("float32")
    agree(layer(paddle.to_tensor(P) @ x)[0], P @ layer(x)[0].numpy(), 1e-5)
    q, k, v = next(iter(layer.split(x)))
    A, Y = attention(q, k, v)[1][0].numpy(), attention(q, k, v)[0][0].numpy()
    agree(P @ A @ P.T @ P @ v[0].numpy(), P @ Y, 1e-5)


@pytest.mark.checks("eq-attention-cost", "parameters and multiplications of attention")
def test_attention_cost(agree):
    """Counts the code's weights, and the multiplications in loops over all numbers."""
    for n, w, heads in ((5, 6, 2), (3, 8, 4)):
        layer = SelfAttention(w, heads)
        agree.exactly(sum(p.size for p in layer.parameters()), 4 * w**2 + 4 * w)
        products = n * sum(p.size for p in layer.parameters() if p.ndim == 2)
        for q, k, v in layer.split(paddle.zeros([1, n, w])):
            for _ in range(n):  # of each query: an inner product with each key, and the mean
                products += k.shape[1] * q.shape[2] + v.shape[1] * v.shape[2]
        agree.exactly(products, 4 * n * w**2 + 2 * n**2 * w)


@pytest.mark.checks("eq-attention-cheaper", "when attention is cheaper than a convolution")
def test_attention_cheaper(agree):
    """SymPy solves for the number of tokens at which both cost the same."""
    n, w = sp.symbols("n w", positive=True)
    [equal] = sp.solve(sp.Eq(4 * n * w**2 + 2 * n**2 * w, 9 * n * w**2), n)
    agree.exactly(equal, sp.Rational(5, 2) * w)


@pytest.mark.checks("eq-patch-embedding", "a linear layer of patches as a strided convolution")
def test_patch_embedding(agree):
    """The tokens that go into the code's network, against sums written out and Paddle's conv2d."""
    paddle.seed(0)
    model = DiT(2, patch=2, width=8, blocks=0, heads=1)
    seen = []
    model.embed.register_forward_post_hook(lambda layer, inputs, y: seen.append(y.numpy()))
    x = paddle.randn([1, 2, 4, 6])
    model(x, paddle.to_tensor([0]))
    M, image = model.embed.weight.numpy().reshape([2, 2, 2, 8]), x[0].numpy()
    for r in range(2):
        for s in range(3):
            square = image[:, 2 * r : 2 * r + 2, 2 * s : 2 * s + 2]
            agree(seen[0][0, 3 * r + s], np.einsum("cabk,cab->k", M, square), 1e-5)
    kernel = paddle.to_tensor(M.transpose([3, 0, 1, 2]))
    strided = paddle.nn.functional.conv2d(x, kernel, stride=2)[0].flatten(1).T
    agree(seen[0][0], strided, 1e-5)


@pytest.mark.checks("eq-place-product", "inner product of two places")
def test_place_product(agree):
    """The code's vectors of all places of a grid, against sums of cosines."""
    vectors = places(3, 5, 16).numpy()
    at = [(r, s) for r in range(3) for s in range(5)]
    omega = 100.0 ** (-np.arange(4) / 4)
    for i, (r, s) in enumerate(at):
        sums = [(np.cos(omega * (r - u)) + np.cos(omega * (s - v))).sum() for u, v in at]
        agree(vectors @ vectors[i], sums, 1e-5)


@pytest.mark.checks("eq-gate-gradient", "gradients at a gate and behind it")
def test_gate_gradient(agree):
    """Paddle's gradients of the code's block with open and closed gates, against the formula."""
    for opened in (0.0, 0.7):
        paddle.seed(1)
        block = DiTBlock(8, 2)
        h, c, u = paddle.randn([1, 3, 8]), paddle.zeros([1, 8]), paddle.randn([1, 3, 8])
        bias = paddle.zeros([6, 8])
        bias[5] = opened * paddle.arange(1, 9, dtype="float32")  # of the second gate
        block.modulation.bias.set_value(bias.flatten())
        (block(h, c) * u).sum().backward()
        f = block.mlp(block.norm(h))
        agree(block.modulation.bias.grad.reshape([6, 8])[5], (u * f).sum(axis=[0, 1]), 1e-4)
        inner = block.mlp[2].weight.grad.numpy()
        hidden = block.mlp[1](block.mlp[0](block.norm(h)))[0].numpy()
        agree(inner, hidden.T @ (bias[5] * u[0]).numpy(), 1e-4)


@pytest.mark.checks("eq-dit-parameters", "parameters of the transformer")
def test_dit_parameters(agree):
    """Counts the weights of networks that Paddle made."""
    for B, w, p, C, K in ((0, 8, 2, 1, 0), (2, 12, 4, 3, 5), (3, 16, 1, 2, 10)):
        model = DiT(C, patch=p, width=w, blocks=B, heads=2, classes=K)
        by_hand = (18 * B + 4) * w**2 + (15 * B + 6 + K + 2 * C * p**2) * w + C * p**2
        agree.exactly(sum(weight.size for weight in model.parameters()), by_hand)
