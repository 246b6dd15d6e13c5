import numpy as np
import paddle
import pytest

from genbook.autoencoder import AutoEncoder, draw_codes


@pytest.fixture
def model():
    paddle.seed(0)
    return AutoEncoder()


def test_layers_are_those_of_the_lab_sheet(model):
    def described(layers):
        return [(type(layer).__name__, *(p.shape for p in layer.parameters())) for layer in layers]

    stage = ["Conv2D", "ReLU", "BatchNorm2D", "MaxPool2D"]
    assert [name for name, *_ in described(model.encoder)] == stage * 2
    assert [name for name, *_ in described(model.decoder)] == [
        "Conv2DTranspose",
        "ReLU",
        "BatchNorm2D",
        "Conv2DTranspose",
        "Sigmoid",
    ]
    weights = [
        layer.weight.shape
        for layer in [*model.encoder, *model.decoder]
        if "Conv" in type(layer).__name__
    ]
    assert weights == [[16, 3, 3, 3], [32, 16, 3, 3], [32, 16, 2, 2], [16, 3, 2, 2]]


@pytest.mark.parametrize("channels, height, width", [(3, 28, 28), (1, 16, 16), (3, 12, 20)])
def test_shapes(channels, height, width):
    model = AutoEncoder(channels)
    x = paddle.rand([2, channels, height, width])
    assert model.encode(x).shape == [2, 32, height // 4, width // 4]
    assert model(x).shape == x.shape


def test_reconstruction_lies_between_0_and_1(model):
    x_hat = model(100 * paddle.randn([4, 3, 8, 8]))
    assert 0 <= x_hat.min().item() and x_hat.max().item() <= 1


def test_forward_is_decode_of_encode(model):
    model.eval()
    x = paddle.rand([2, 3, 8, 8])
    np.testing.assert_array_equal(model(x).numpy(), model.decode(model.encode(x)).numpy())


def test_convolution_at_a_corner_by_hand(model):
    x = paddle.rand([1, 3, 8, 8])
    weight, bias = model.encoder[0].weight.numpy(), model.encoder[0].bias.numpy()
    corner = x.numpy()[0, :, :2, :2]  # the padding of zeros takes the kernel's first row and column
    by_hand = (weight[:, :, 1:, 1:] * corner).sum(axis=(1, 2, 3)) + bias
    np.testing.assert_allclose(
        model.encoder[0](x).numpy()[0, :, 0, 0], by_hand, rtol=1e-4, atol=1e-6
    )


def test_sides_that_pooling_would_cut_are_refused(model):
    for use in (model, model.encode):
        with pytest.raises(ValueError, match="multiples of 4"):
            use(paddle.rand([1, 3, 10, 12]))


def test_drawn_codes_have_the_moments_of_each_component():
    paddle.seed(0)
    codes = paddle.to_tensor([[0.0, 5.0], [2.0, 5.0]])  # means 1 and 5, deviations 1 and 0
    drawn = draw_codes(codes, 100_000).numpy()
    assert drawn.shape == (100_000, 2)
    assert abs(drawn[:, 0].mean() - 1) < 4 / np.sqrt(100_000)
    assert abs(drawn[:, 0].std() - 1) < 4 / np.sqrt(200_000)
    assert (drawn[:, 1] == 5).all()


def test_what_is_wrong_with_the_sides_is_told(model):
    for sides in ([10, 12], [12, 10]):
        words = rf"^sides must be multiples of 4, got .*\[{sides[0]}, {sides[1]}\]"
        with pytest.raises(ValueError, match=words):
            model.encode(paddle.rand([1, 3, *sides]))


def test_the_parts_of_the_network_are_those_of_the_lab_sheet(model):
    first, second = model.encoder[0], model.encoder[4]
    assert (first.weight.shape, second.weight.shape) == ([16, 3, 3, 3], [32, 16, 3, 3])
    one_row = paddle.zeros([1, 3, 8, 8])
    assert [layer(one_row).shape[2:] for layer in (first, model.encoder[3])] == [[8, 8], [4, 4]]
    assert AutoEncoder().encoder[0].weight.shape[1] == 3  # images in colour by default


def test_the_components_of_drawn_codes_are_independent():
    paddle.seed(0)
    codes = paddle.to_tensor([[0.0, 3.0], [2.0, 5.0]])  # whose components go together
    drawn = draw_codes(codes, 10_000).numpy()
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 5 / np.sqrt(10_000)


def test_a_tenth_of_each_batch_goes_into_the_running_mean_and_variance(model):
    norms = [x for x in (*model.encoder, *model.decoder) if "BatchNorm" in type(x).__name__]
    seen = []
    for norm in norms:
        norm.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].numpy()))
    model(paddle.rand([6, 3, 8, 8]))
    assert len(seen) == 3
    for norm, h in zip(norms, seen, strict=True):
        mean, variance = h.mean(axis=(0, 2, 3)), h.var(axis=(0, 2, 3))
        np.testing.assert_allclose(norm._mean.numpy(), 0.1 * mean, rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(norm._variance.numpy(), 0.9 + 0.1 * variance, rtol=1e-2)


def test_none_and_one_code_can_be_drawn():
    codes = paddle.rand([5, 2, 3])
    assert [draw_codes(codes, n).shape for n in (0, 1)] == [[0, 2, 3], [1, 2, 3]]
