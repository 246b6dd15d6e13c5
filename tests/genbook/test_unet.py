import numpy as np
import paddle
import pytest

from genbook.unet import ResBlock, UNet, timestep_embedding


@pytest.mark.parametrize("channels, size", [(1, 16), (3, 28)])
def test_the_prediction_has_the_shape_of_the_input(channels, size):
    model = UNet(channels, width=8)
    x = paddle.randn([2, channels, size, size])
    assert model(x, paddle.to_tensor([0, 999])).shape == x.shape


def test_embedding_by_hand():
    embedding = timestep_embedding(paddle.to_tensor([0, 7]), 4).numpy()
    expected = [[0, 0, 1, 1], [np.sin(7), np.sin(0.07), np.cos(7), np.cos(0.07)]]
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
