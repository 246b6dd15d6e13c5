import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

from genbook.unet import ResBlock, UNet, timestep_embedding


@pytest.mark.parametrize("channels, size", [(1, 16), (3, 28)])
def test_the_prediction_has_the_shape_of_the_input(channels, size):
    model = UNet(channels, width=8)
    x = paddle.randn([2, channels, size, size])
    assert model(x, paddle.to_tensor([0, 999])).shape == x.shape


def test_embedding_by_hand():
    embedding = timestep_embedding(paddle.to_tensor([0, 700]), 4).numpy()
    expected = [[0, 0, 1, 1], [np.sin(700), np.sin(7), np.cos(700), np.cos(7)]]
    np.testing.assert_allclose(embedding, expected, atol=1e-5)


def test_embeddings_of_neighbouring_steps_differ():
    embedding = timestep_embedding(paddle.arange(1000), 32).numpy()
    distance = np.linalg.norm(np.diff(embedding, axis=0), axis=1)
    assert distance.min() > 0.1


def trained_a_little():
    """A network whose blocks no longer start at zero, so that everything reaches the output."""
    paddle.seed(0)
    model = UNet(1, width=8)
    for parameter in model.parameters():
        parameter.set_value(parameter + 0.1 * paddle.randn(parameter.shape))
    model.eval()
    return model


def test_the_step_reaches_every_pixel():
    model = trained_a_little()
    x = paddle.randn([1, 1, 16, 16])
    outputs = [model(x, paddle.to_tensor([t])).numpy() for t in (10, 600)]
    assert (outputs[0] != outputs[1]).mean() > 0.9


def test_every_pixel_sees_the_far_corner():
    model = trained_a_little()
    x = paddle.randn([1, 1, 16, 16])
    other = x.clone()
    other[0, 0, 0, 0] += 5.0
    t = paddle.to_tensor([100])
    assert (model(x, t).numpy() != model(other, t).numpy())[0, 0, -1, -1]


def test_all_parameters_receive_gradients():
    model = trained_a_little()
    model.train()
    model(paddle.randn([4, 1, 16, 16]), paddle.arange(4)).square().sum().backward()
    trainable = [(n, p) for n, p in model.named_parameters() if not p.stop_gradient]
    assert len(trainable) > 40
    for name, parameter in trainable:
        assert parameter.grad is not None and parameter.grad.abs().max().item() > 0, name


def test_sides_that_halving_would_cut_are_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        UNet(1, 8)(paddle.randn([1, 1, 18, 16]), paddle.to_tensor([0]))


def test_a_block_starts_as_its_shortcut():
    paddle.seed(0)
    x, temb = paddle.randn([2, 8, 4, 4]), paddle.randn([2, 6])
    np.testing.assert_array_equal(ResBlock(8, 8, 6)(x, temb).numpy(), x.numpy())
    block = ResBlock(8, 16, 6)
    np.testing.assert_array_equal(block(x, temb).numpy(), block.shortcut(x).numpy())


def test_an_image_does_not_depend_on_the_others_of_its_batch():
    model = trained_a_little()
    model.train()
    x, t = paddle.randn([3, 1, 16, 16]), paddle.to_tensor([5, 400, 990])
    together, alone = model(x, t), model(x[:1], t[:1])
    np.testing.assert_allclose(together[:1].numpy(), alone.numpy(), rtol=1e-3, atol=1e-4)


def test_the_label_reaches_every_pixel():
    paddle.seed(0)
    model = UNet(1, width=8, classes=3)
    for parameter in model.parameters():
        parameter.set_value(parameter + 0.1 * paddle.randn(parameter.shape))
    x, t = paddle.randn([1, 1, 16, 16]), paddle.to_tensor([5])
    outputs = [model(x, t, paddle.to_tensor([label])).numpy() for label in (0, 2, 3)]
    assert (outputs[0] != outputs[1]).all()
    np.testing.assert_array_equal(outputs[2], model(x, t).numpy())  # no label is label 3


def written_out(model, x, t, labels):
    """The network as the chapter describes it, in plain operations on its weights."""
    w = dict(model.named_parameters())

    def silu(u):
        return u / (1 + paddle.exp(-u))

    def linear(name, rows):
        return rows @ w[f"{name}.weight"] + w[f"{name}.bias"]

    def conv(name, h, stride=1):
        return F.conv2d(h, w[f"{name}.weight"], w[f"{name}.bias"], stride, padding=1)

    def norm(name, h):
        n, c, *sides = h.shape
        groups = h.reshape([n, 8, -1])
        away = groups - groups.mean(axis=2, keepdim=True)
        scaled = away / (away.square().mean(axis=2, keepdim=True) + 1e-5).sqrt()
        a, b = (w[f"{name}.{part}"].reshape([c, 1, 1]) for part in ("weight", "bias"))
        return a * scaled.reshape([n, c, *sides]) + b

    def block(name, h, temb):
        inner = conv(f"{name}.conv1", silu(norm(f"{name}.norm1", h)))
        inner += linear(f"{name}.time", temb).reshape([len(h), -1, 1, 1])
        inner = conv(f"{name}.conv2", silu(norm(f"{name}.norm2", inner)))
        if f"{name}.shortcut.weight" in w:
            h = F.conv2d(h, w[f"{name}.shortcut.weight"], w[f"{name}.shortcut.bias"])
        return h + inner

    temb = linear("time.2", silu(linear("time.0", timestep_embedding(t, model.width))))
    temb = silu(temb + w["label.weight"][labels])
    n, c, height, width = x.shape
    squares = x.reshape([n, c, height // 2, 2, width // 2, 2]).transpose([0, 1, 3, 5, 2, 4])
    first = block("down1", conv("stem", squares.flatten(1, 3)), temb)
    second = block("down2", conv("shrink", first, stride=2), temb)
    h = block("middle", second, temb)
    h = block("up2", paddle.concat([h, second], axis=1), temb)
    grown = F.conv2d_transpose(h, w["grow.weight"], w["grow.bias"], stride=2)
    h = conv("head", silu(block("up1", paddle.concat([grown, first], axis=1), temb)))
    squares = h.reshape([n, c, 2, 2, height // 2, width // 2]).transpose([0, 1, 4, 2, 5, 3])
    return squares.reshape([n, c, height, width])


def test_the_network_is_as_the_chapter_describes_it():
    paddle.seed(0)
    model = UNet(3, width=16, classes=4)
    for parameter in model.parameters():
        parameter.set_value(parameter + 0.1 * paddle.randn(parameter.shape))
    x, t = paddle.randn([3, 3, 8, 12]), paddle.to_tensor([0, 300, 999])
    labels = paddle.to_tensor([4, 0, 2])
    with paddle.no_grad():
        found, expected = model(x, t, labels), written_out(model, x, t, labels)
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-3, atol=1e-3)


def test_the_layers_of_the_u_net():
    model = UNet(2, width=16, classes=3)
    shapes = {name: p.shape for name, p in model.named_parameters() if p.ndim > 1}
    blocks = {
        "down1": (16, 16),
        "down2": (32, 32),
        "middle": (32, 32),
        "up2": (64, 32),
        "up1": (32, 16),
    }
    expected = {
        "time.0.weight": [16, 64],
        "time.2.weight": [64, 64],
        "label.weight": [4, 64],
        "stem.weight": [16, 8, 3, 3],
        "shrink.weight": [32, 16, 3, 3],
        "grow.weight": [32, 16, 2, 2],
        "head.weight": [8, 16, 3, 3],
        "up2.shortcut.weight": [32, 64, 1, 1],
        "up1.shortcut.weight": [16, 32, 1, 1],
    }
    for name, (into, out) in blocks.items():
        expected[f"{name}.conv1.weight"] = [out, into, 3, 3]
        expected[f"{name}.time.weight"] = [64, out]
        expected[f"{name}.conv2.weight"] = [out, out, 3, 3]
    assert shapes == expected
    assert [type(layer).__name__ for layer in model.time] == ["Linear", "Silu", "Linear"]


def test_a_u_net_is_by_default_that_of_the_text():
    model = UNet()
    assert (model.channels, model.width, model.classes) == (1, 64, 0)


def shift(parameter, by):
    parameter.set_value(parameter + by)


def test_only_the_sum_of_step_and_label_counts():
    paddle.seed(0)
    model = UNet(1, width=8, classes=3)
    for parameter in model.parameters():
        shift(parameter, 0.1 * paddle.randn(parameter.shape))
    x, t, labels = paddle.randn([2, 1, 8, 8]), paddle.to_tensor([5, 900]), paddle.to_tensor([1, 3])
    before, c = model(x, t, labels), paddle.randn([32])
    shift(model.time[2].bias, c)
    assert not np.allclose(model(x, t, labels), before, rtol=1e-3, atol=1e-3)
    shift(model.label.weight, -c)
    np.testing.assert_allclose(model(x, t, labels), before, rtol=1e-3, atol=1e-4)


def test_a_block_adds_the_step_to_its_features_and_the_rest_to_its_shortcut():
    paddle.seed(0)
    block = ResBlock(8, 16, 6)
    shift(block.conv2.weight, paddle.randn(block.conv2.weight.shape))
    x, temb, c = paddle.randn([2, 8, 4, 4]), paddle.randn([2, 6]), paddle.randn([16])
    before = block(x, temb)
    shift(block.time.bias, c)
    assert not np.allclose(block(x, temb), before, rtol=1e-2, atol=1e-2)
    shift(block.conv1.bias, -c)
    np.testing.assert_allclose(block(x, temb), before, rtol=1e-3, atol=1e-3)
    shift(block.conv2.bias, c)
    after = before + c.reshape([16, 1, 1])
    np.testing.assert_allclose(block(x, temb), after, rtol=1e-3, atol=1e-3)
