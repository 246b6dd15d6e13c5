import re

import numpy as np
import paddle
import pytest

from genbook.transformer import DiT, DiTBlock, SelfAttention, attention, places
from genbook.unet import timestep_embedding


def shaken(layer, by=0.2):
    """The layer, its zeros and all else moved at random, so that everything reaches the output."""
    for parameter in layer.parameters():
        parameter.set_value(parameter + by * paddle.randn(parameter.shape))
    return layer


def test_attention_is_a_weighted_mean_by_hand():
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=s).astype("float32") for s in ((2, 3, 4), (2, 5, 4), (2, 5, 6)))
    found, weights = attention(*map(paddle.to_tensor, (q, k, v)))
    assert found.shape == [2, 3, 6] and weights.shape == [2, 3, 5]
    for b in range(2):
        for i in range(3):
            scores = np.array([q[b, i] @ key for key in k[b]]) / 2  # the root of 4
            a = np.exp(scores) / np.exp(scores).sum()
            np.testing.assert_allclose(weights[b, i], a, rtol=1e-5)
            np.testing.assert_allclose(found[b, i], a @ v[b], rtol=1e-4, atol=1e-6)


def attended(layer, x):
    """Self-attention head by head and token by token, in NumPy."""
    w = {name: p.numpy() for name, p in layer.named_parameters()}
    qkv = x @ w["qkv.weight"] + w["qkv.bias"]
    width = x.shape[2]
    q, k, v = (qkv[..., i * width : (i + 1) * width] for i in range(3))
    d, means = width // layer.heads, np.zeros_like(x)
    for head in range(layer.heads):
        part = slice(head * d, (head + 1) * d)
        for n in range(len(x)):
            scores = q[n, :, part] @ k[n, :, part].T / np.sqrt(d)
            a = np.exp(scores)
            means[n, :, part] = a / a.sum(axis=1, keepdims=True) @ v[n, :, part]
    return means @ w["out.weight"] + w["out.bias"]


@pytest.mark.parametrize("heads", [1, 3])
def test_self_attention_is_as_the_chapter_describes_it(heads):
    paddle.seed(0)
    layer, x = shaken(SelfAttention(12, heads)), paddle.randn([2, 5, 12])
    np.testing.assert_allclose(layer(x), attended(layer, x.numpy()), rtol=1e-3, atol=1e-4)


def test_places_are_sines_of_row_and_column():
    found = places(2, 3, 8).numpy()
    rows, columns = np.repeat([0, 1], 3), np.tile([0, 1, 2], 2)
    parts = [f(w * at) for at in (rows, columns) for f in (np.sin, np.cos) for w in (1, 0.1)]
    np.testing.assert_allclose(found, np.stack(parts, axis=1), atol=1e-6)


def test_the_network_is_as_the_chapter_describes_it():
    """Written out in plain operations on its weights, patch by patch."""
    paddle.seed(0)
    model = shaken(DiT(2, patch=2, width=8, blocks=2, heads=2, classes=3))
    w = {name: p.numpy() for name, p in model.named_parameters()}
    x = paddle.randn([3, 2, 4, 6]).numpy()
    t, y = paddle.to_tensor([0, 300, 999]), paddle.to_tensor([3, 0, 2])

    def silu(u):
        return u / (1 + np.exp(-u))

    def linear(name, rows):
        return rows @ w[f"{name}.weight"] + w[f"{name}.bias"]

    def norm(h):
        away = h - h.mean(axis=-1, keepdims=True)
        return away / np.sqrt((away**2).mean(axis=-1, keepdims=True) + 1e-5)

    time = linear("time.2", silu(linear("time.0", timestep_embedding(t, 8).numpy())))
    condition = silu(time + w["label.weight"][y.numpy()])[:, np.newaxis]
    patches = [x[:, :, i : i + 2, j : j + 2].reshape(3, 8) for i in (0, 2) for j in (0, 2, 4)]
    h = linear("embed", np.stack(patches, axis=1)) + places(2, 3, 8).numpy()
    for i, block in enumerate(model.blocks):
        m = np.split(linear(f"blocks.{i}.modulation", condition), 6, axis=2)
        h = h + m[2] * attended(block.attention, norm(h) * (1 + m[1]) + m[0])
        inner = silu(linear(f"blocks.{i}.mlp.0", norm(h) * (1 + m[4]) + m[3]))
        h = h + m[5] * linear(f"blocks.{i}.mlp.2", inner)
    shift, scale = np.split(linear("modulation", condition), 2, axis=2)
    out = linear("head", norm(h) * (1 + scale) + shift)
    expected = np.zeros_like(x)
    for n, (i, j) in enumerate((i, j) for i in (0, 2) for j in (0, 2, 4)):
        expected[:, :, i : i + 2, j : j + 2] = out[:, n].reshape(3, 2, 2, 2)
    found = model(paddle.to_tensor(x), t, y)
    np.testing.assert_allclose(found, expected, rtol=1e-2, atol=1e-3)


def test_blocks_start_as_the_identity_and_the_network_at_zero():
    paddle.seed(0)
    h, condition = paddle.randn([2, 5, 8]), paddle.randn([2, 8])
    np.testing.assert_array_equal(DiTBlock(8, 2)(h, condition), h)
    assert (DiT(width=8, heads=2)(paddle.randn([2, 1, 4, 4]), whole(0, 5)) == 0).all()


def whole(*numbers):
    return paddle.to_tensor(numbers)


def test_without_places_the_patches_may_change_theirs():
    paddle.seed(0)
    x, order = paddle.randn([2, 1, 6, 6]), np.random.default_rng(0).permutation(9)

    def reordered(images):
        grid = images.reshape([2, 3, 2, 3, 2]).transpose([0, 1, 3, 2, 4])
        grid = grid.flatten(1, 2)[:, order].reshape([2, 3, 3, 2, 2])
        return grid.transpose([0, 1, 3, 2, 4]).reshape([2, 1, 6, 6])

    for told in (False, True):
        model = shaken(DiT(1, 2, width=8, heads=2, positions=told))
        one, other = reordered(model(x, whole(5, 9))), model(reordered(x), whole(5, 9))
        assert np.allclose(one, other, rtol=1e-3, atol=1e-4) == (not told)


def test_step_and_label_reach_every_pixel_and_no_label_is_the_last():
    paddle.seed(0)
    model = shaken(DiT(1, 2, width=8, heads=2, classes=3))
    x = paddle.randn([1, 1, 4, 4])
    calls = [(3, 0), (700, 0), (3, 2), (3, 3)]
    outputs = [model(x, whole(t), whole(y)).numpy() for t, y in calls]
    assert all((outputs[0] != other).all() for other in outputs[1:])
    np.testing.assert_array_equal(model(x, whole(3)), outputs[3])


def test_each_image_is_predicted_by_itself():
    paddle.seed(0)
    model = shaken(DiT(1, 2, width=8, heads=2, classes=3))
    x, t, y = paddle.randn([3, 1, 4, 4]), whole(0, 500, 999), whole(0, 3, 1)
    alone = [model(x[i : i + 1], t[i : i + 1], y[i : i + 1]) for i in range(3)]
    np.testing.assert_allclose(model(x, t, y), paddle.concat(alone), rtol=1e-3, atol=1e-5)


def test_the_layers_of_the_transformer():
    model = DiT(2, patch=4, width=12, blocks=2, heads=3, classes=5)
    found = {name: p.shape for name, p in model.named_parameters() if p.ndim > 1}
    expected = {
        "time.0.weight": [12, 12],
        "time.2.weight": [12, 12],
        "label.weight": [6, 12],
        "embed.weight": [32, 12],
        "modulation.weight": [12, 24],
        "head.weight": [12, 32],
    }
    for block in ("blocks.0", "blocks.1"):
        expected[f"{block}.attention.qkv.weight"] = [12, 36]
        expected[f"{block}.attention.out.weight"] = [12, 12]
        expected[f"{block}.mlp.0.weight"] = [12, 48]
        expected[f"{block}.mlp.2.weight"] = [48, 12]
        expected[f"{block}.modulation.weight"] = [12, 72]
    assert found == expected
    names = {name.split(".")[-2] for name, p in model.named_parameters() if p.ndim == 1}
    assert "norm" not in names  # scale and shift of a norm come from the condition


def test_a_transformer_is_by_default_that_of_the_text():
    model = DiT()
    found = model.channels, model.patch, model.width, len(model.blocks), model.classes
    assert found == (1, 2, 64, 2, 0) and model.blocks[0].attention.heads == 4 and model.positions


def test_the_smallest_of_each():
    assert SelfAttention(1, 1)(paddle.zeros([1, 1, 1])).shape == [1, 1, 1]
    model = DiT(1, patch=1, width=4, blocks=0, heads=1)
    assert model(paddle.zeros([1, 1, 1, 1]), whole(0)).shape == [1, 1, 1, 1]


X, STEPS = paddle.zeros([2, 1, 4, 4]), whole(0, 5)
MODEL = DiT(1, 2, width=8, blocks=1, heads=2, classes=3)
WRONG = {
    "expected [n, d], [m, d] and [m, e] at the end, got [[3, 4], [5, 3], [5, 6]]": (
        lambda: attention(*map(paddle.zeros, ([3, 4], [5, 3], [5, 6])))
    ),
    "got [[3, 4], [5, 4], [6, 6]]": lambda: attention(*map(paddle.zeros, ([3, 4], [5, 4], [6, 6]))),
    "width=8, heads=3": lambda: SelfAttention(8, 3),
    "width=8, heads=0": lambda: SelfAttention(8, 0),
    "width=0, heads=1": lambda: SelfAttention(0, 1),
    "width must be a multiple of 4, got 6": lambda: places(2, 2, 6),
    "width=6, blocks=2": lambda: DiT(width=6, heads=1),
    "channels=0": lambda: DiT(channels=0),
    "patch=0": lambda: DiT(patch=0),
    "blocks=-1": lambda: DiT(blocks=-1),
    "classes=-1": lambda: DiT(classes=-1),
    "multiples of 2, got [4, 3]": lambda: MODEL(X[..., :3], STEPS),
    "multiples of 2, got [3, 4]": lambda: MODEL(X[..., :3, :], STEPS),
    "expected [N, 1, H, W], got [2, 4, 4]": lambda: MODEL(X[:, 0], STEPS),
    "expected [N, 1, H, W], got [1, 2, 4, 4]": lambda: MODEL(X.transpose([1, 0, 2, 3]), STEPS),
    "a tensor is expected": lambda: MODEL(X.numpy(), STEPS),
    "a tensor of floats is expected": lambda: MODEL(X.astype("int64"), STEPS),
    "t must be whole numbers [2], got": lambda: MODEL(X, whole(0, 1, 2)),
    "t must be from 0 to None, got -1 to 5": lambda: MODEL(X, whole(-1, 5)),
    "labels must be whole numbers [2]": lambda: MODEL(X, STEPS, whole(0)),
    "labels must be from 0 to 3, got 0 to 4": lambda: MODEL(X, STEPS, whole(0, 4)),
}


@pytest.mark.parametrize("words", WRONG)
def test_wrong_input_is_named(words):
    with pytest.raises(ValueError, match=re.escape(words)):
        WRONG[words]()


def test_double_precision_is_taken_as_single():
    assert MODEL(X.astype("float64"), STEPS).dtype == paddle.float32
