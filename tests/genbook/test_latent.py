import numpy as np
import paddle

from genbook.latent import CodeBlock, CodeDenoiser, CodeScale
from genbook.unet import timestep_embedding


def test_scaling_there_and_back_is_the_identity():
    paddle.seed(0)
    scale = CodeScale(3 + 2 * paddle.randn([50, 4]), paddle.randn([50, 4]))
    z = paddle.randn([9, 4])
    back = scale.to_code(scale.to_unit(z))
    np.testing.assert_allclose(back.numpy(), z.numpy(), rtol=1e-5, atol=1e-5)


def test_a_dimension_that_the_images_do_not_use_keeps_its_noise():
    """mu = 0 and sigma = 1 for all images: it is standard already."""
    scale = CodeScale(paddle.zeros([5, 1]), paddle.zeros([5, 1]))
    np.testing.assert_allclose(scale.to_unit(paddle.to_tensor([[1.7]])).numpy(), [[1.7]])


def test_the_scale_of_two_codes_by_hand():
    """Means 1 and 5, so a variance of 4, and variances of 2 and 3 around them."""
    mu, variance = paddle.to_tensor([[1.0], [5.0]]), paddle.to_tensor([[2.0], [3.0]])
    scale = CodeScale(mu, variance.log())
    unit = scale.to_unit(paddle.to_tensor([[3.0], [4.0]])).numpy()
    np.testing.assert_allclose(unit, [[0], [1 / np.sqrt(6.5)]], rtol=1e-6)


def shaken_denoiser():
    """A network whose blocks no longer start at zero, so that everything reaches the output."""
    paddle.seed(0)
    model = CodeDenoiser(5, width=16, blocks=2, classes=3)
    for parameter in model.parameters():
        parameter.set_value(parameter + 0.1 * paddle.randn(parameter.shape))
    return model


def test_step_and_label_reach_the_prediction():
    model = shaken_denoiser()
    u = paddle.randn([1, 5])
    calls = [(3, 0), (700, 0), (3, 2), (3, 3)]
    outputs = [model(u, paddle.to_tensor([t]), paddle.to_tensor([y])).numpy() for t, y in calls]
    assert outputs[0].shape == (1, 5)
    assert all(np.abs(outputs[0] - other).min() > 0 for other in outputs[1:])
    no_label = model(u, paddle.to_tensor([3])).numpy()
    np.testing.assert_array_equal(no_label, outputs[3])  # no label is label 3


def test_each_row_is_predicted_by_itself():
    model = shaken_denoiser()
    u, y = paddle.randn([4, 5]), paddle.to_tensor([0, 1, 2, 3])
    t = paddle.to_tensor([0, 9, 500, 999])
    together = model(u, t, y).numpy()
    alone = np.concatenate(
        [model(u[i : i + 1], t[i : i + 1], y[i : i + 1]).numpy() for i in range(4)]
    )
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


def test_the_time_reaches_the_network_as_in_the_u_net():
    model = CodeDenoiser(5, width=16)
    seen = []
    model.time.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].numpy()))
    t = paddle.to_tensor([0, 1, 57, 999])
    model(paddle.zeros([4, 5]), t)
    np.testing.assert_array_equal(seen[0], timestep_embedding(t, 16).numpy())


def test_the_network_is_as_the_chapter_describes_it():
    """Written out in plain operations on its weights."""
    model = shaken_denoiser()
    w = dict(model.named_parameters())
    u = paddle.randn([4, 5])
    t, y = paddle.to_tensor([0, 9, 500, 999]), paddle.to_tensor([0, 3, 1, 2])

    def silu(x):
        return x / (1 + paddle.exp(-x))

    def linear(name, rows):
        return rows @ w[f"{name}.weight"] + w[f"{name}.bias"]

    def norm(name, rows):
        away = rows - rows.mean(axis=1, keepdim=True)
        scaled = away / (away.square().mean(axis=1, keepdim=True) + 1e-5).sqrt()
        return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]

    time = linear("time.2", silu(linear("time.0", timestep_embedding(t, 16))))
    condition = silu(time + w["label.weight"][y])
    h = linear("first", u)
    for name in ("blocks.0", "blocks.1"):
        inner = linear(f"{name}.linear1", norm(f"{name}.norm", h))
        inner += linear(f"{name}.condition", condition)
        h = h + linear(f"{name}.linear2", silu(inner))
    expected = linear("last", norm("norm", h))
    np.testing.assert_allclose(model(u, t, y).numpy(), expected.numpy(), rtol=1e-3, atol=1e-4)


def test_a_block_starts_as_its_shortcut():
    h, condition = paddle.randn([3, 8]), paddle.randn([3, 8])
    np.testing.assert_array_equal(CodeBlock(8)(h, condition).numpy(), h.numpy())


def test_scaled_codes_have_mean_0_and_variance_1_in_each_dimension():
    rng = np.random.default_rng(0)
    mu, sigma = rng.normal(1, 2, (6, 3)), rng.uniform(0.2, 2, (6, 3))
    n = 50_000  # codes of each image
    z = mu + sigma * rng.standard_normal((n, 6, 3))
    scale = CodeScale(*(paddle.to_tensor(x, dtype="float32") for x in (mu, 2 * np.log(sigma))))
    u = scale.to_unit(paddle.to_tensor(z.reshape(-1, 3), dtype="float32")).numpy()
    assert np.abs(u.mean(axis=0)).max() < 5 / np.sqrt(6 * n)
    assert np.abs(u.var(axis=0) - 1).max() < 5 * np.sqrt(2 / (6 * n))


def test_the_layers_of_the_network_for_codes():
    model = CodeDenoiser(5, width=16, blocks=2, classes=3)
    expected = {
        "time.0.weight": [16, 16],
        "time.2.weight": [16, 16],
        "label.weight": [4, 16],
        "first.weight": [5, 16],
        "last.weight": [16, 5],
    }
    for i in range(2):
        expected[f"blocks.{i}.linear1.weight"] = [16, 32]
        expected[f"blocks.{i}.condition.weight"] = [16, 32]
        expected[f"blocks.{i}.linear2.weight"] = [32, 16]
    assert {name: p.shape for name, p in model.named_parameters() if p.ndim > 1} == expected
    assert [type(layer).__name__ for layer in model.time] == ["Linear", "Silu", "Linear"]


def test_the_network_for_codes_is_by_default_that_of_the_text():
    model = CodeDenoiser(5)
    assert (model.width, len(model.blocks), model.classes) == (192, 2, 0)


def test_the_smallest_network_for_codes():
    model = CodeDenoiser(1, width=2, blocks=0)
    assert model(paddle.zeros([3, 1]), paddle.to_tensor([0, 1, 2])).shape == [3, 1]


def shift(parameter, by):
    parameter.set_value(parameter + by)


def test_only_the_sum_of_step_and_label_counts():
    model = shaken_denoiser()
    u, t, y = paddle.randn([2, 5]), paddle.to_tensor([5, 900]), paddle.to_tensor([1, 3])
    before, c = model(u, t, y), paddle.randn([16])
    shift(model.time[2].bias, c)
    assert not np.allclose(model(u, t, y), before, rtol=1e-3, atol=1e-3)
    shift(model.label.weight, -c)
    np.testing.assert_allclose(model(u, t, y), before, rtol=1e-3, atol=1e-4)


def test_a_block_adds_the_condition_to_its_features_and_the_rest_to_its_shortcut():
    block = shaken_denoiser().blocks[0]
    h, condition, c = paddle.randn([2, 16]), paddle.randn([2, 16]), paddle.randn([32])
    before = block(h, condition)
    shift(block.condition.bias, c)
    assert not np.allclose(block(h, condition), before, rtol=1e-3, atol=1e-3)
    shift(block.linear1.bias, -c)
    np.testing.assert_allclose(block(h, condition), before, rtol=1e-3, atol=1e-4)
    shift(block.linear2.bias, c[:16])
    np.testing.assert_allclose(block(h, condition), before + c[:16], rtol=1e-3, atol=1e-4)
