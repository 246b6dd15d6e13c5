"""Checks for Task 1: the encoder and the decoder of the autoencoder."""

import numpy as np
import paddle

from .compare import Wrong, array, call, expect_shape

MOST_ERROR = 0.015  # squared, per value, of a trained model on new images
LINEAR = "without ReLU between them, two convolutions can do no more than one"


def check_encoder(AutoEncoder, seed=0):
    """Wrong, with the reason, unless .encoder maps [N, C, H, W] to [N, 32, H/4, W/4].

    It must have activations and normalise its feature maps; how it halves the sides is
    free. AutoEncoder: the class. seed: of the inputs.
    """
    rng = np.random.default_rng(seed)
    n, wide = (int(k) for k in rng.integers(2, 5, 2))
    model = _built(AutoEncoder, 3)
    if not list(model.encoder.sublayers()):
        raise Wrong("the encoder is still empty")
    code = _run(model.encoder, rng.random((n, 3, 28, 28)), "the encoder")
    _check_maps(code, n, 32, 7, "the encoder", {
        28: "are both poolings missing?",
        14: "is the second pooling missing?",
        **dict.fromkeys([5, 6], "is padding=1 missing? Without it the border is cut off"),
        3: "is there one pooling too many?",
    })  # fmt: skip
    if _lacks(model.encoder, "activation"):
        raise Wrong(f"the encoder has no activation: {LINEAR}")
    if _lacks(model.encoder, "norm"):
        raise Wrong("the encoder does not normalise its feature maps: is BatchNorm2D missing?")

    # Any number of channels, and images that are not square
    encoder = _built(AutoEncoder, 1).encoder
    try:
        code = _run(encoder, rng.random((n, 1, 12, 4 * wide)), "the encoder")
    except Wrong as wrong:
        words = f"with in_channels=1, {wrong} (is a 3 written where in_channels belongs?)"
        raise Wrong(words) from wrong
    expect_shape(code, [n, 32, 3, wide], f"the encoder's output for [{n}, 1, 12, {4 * wide}]")


def check_decoder(AutoEncoder, seed=0):
    """Wrong, with the reason, unless .decoder maps [N, 32, h, w] to [N, C, 4h, 4w].

    Its values must lie in [0, 1] and use that range. AutoEncoder: the class. seed: of
    the inputs.
    """
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 5))
    model = _built(AutoEncoder, 3)
    if not list(model.decoder.sublayers()):
        raise Wrong("the decoder is still empty")
    codes = 100 * rng.standard_normal((n, 32, 7, 7))  # large: they drive a sigmoid to its ends
    images = _run(model.decoder, codes, "the decoder")
    _check_maps(images, n, 3, 28, "the decoder", {
        7: "are both transposed convolutions missing, or their stride=2?",
        14: "is the second transposed convolution missing, or its stride=2?",
        **dict.fromkeys([8, 9], "is stride=2 missing?"),
        **dict.fromkeys([29, 30, 31], "a kernel of 2 with stride 2 doubles the side exactly, "
                                      "a kernel of 3 does not"),
        56: "is there one transposed convolution too many?",
    })  # fmt: skip
    low, high = images.min(), images.max()
    if -1 <= low < 0 and high <= 1:
        raise Wrong(
            "the decoder gives values from -1 to 1, and images are in [0, 1]: take "
            "the sigmoid at its end, not Tanh"
        )
    if low < 0 or high > 1:
        end = "a ReLU stands where its sigmoid belongs" if low == 0 else "its sigmoid is missing"
        raise Wrong(
            f"the decoder gives values from {low:.3g} to {high:.3g}, images are in [0, 1]: {end}"
        )
    if low > 0.4:
        reason = "does a ReLU or a second sigmoid stand beside the sigmoid at its end?"
        raise Wrong(f"the decoder gives no value below {low:.2f}: {reason}")
    sequence = isinstance(model.decoder, paddle.nn.Sequential)
    if sequence and _lacks(model.decoder[:-1], "activation"):
        raise Wrong(f"the decoder has no activation before its last convolution: {LINEAR}")

    decoder = _built(AutoEncoder, 1).decoder
    images = _run(decoder, rng.standard_normal((n, 32, 3, 2)), "the decoder")
    name = f"with in_channels=1 the decoder's output for [{n}, 32, 3, 2]"
    expect_shape(images, [n, 1, 12, 8], name, ": is a 3 written where in_channels belongs?")


def check_reconstruction(model, images):
    """Wrong unless the trained `model` reconstructs images [N, C, H, W] in [0, 1].

    Returns the mean squared error over all their values, at most MOST_ERROR.
    """
    model.eval()
    found = _run(model, images, "the autoencoder")
    expect_shape(found, images.shape, "the reconstruction")
    error = float(((found - images) ** 2).mean())
    mean_image = float(((images - images.mean(0)) ** 2).mean())
    if not error <= MOST_ERROR:
        raise Wrong(
            f"the mean squared error on new images is {error:.4f}, expected at most {MOST_ERROR}; "
            f"the mean image alone has {mean_image:.4f}: is the model trained?"
        )
    return error


def _built(AutoEncoder, channels):
    """An AutoEncoder for so many channels, in eval mode."""
    if isinstance(AutoEncoder, paddle.nn.Layer):
        raise Wrong("give the class AutoEncoder itself, not an object made of it")
    model = call(AutoEncoder, channels, name=f"AutoEncoder(in_channels={channels})")
    for name in ("encoder", "decoder"):
        if not isinstance(getattr(model, name, None), paddle.nn.Layer):
            raise Wrong(f"AutoEncoder has no network self.{name}")
    model.eval()
    return model


@paddle.no_grad()
def _run(network, x, name):
    """What a network makes of numpy x, as float64 numpy."""
    return array(call(network, paddle.to_tensor(x, dtype="float32"), name=name), name)


def _check_maps(maps, n, channels, side, name, reasons):
    """Wrong unless `maps` is [n, channels, side, side]; reasons: by the side found."""
    if maps.ndim != 4 or len(maps) != n:
        expect_shape(maps, [n, channels, side, side], f"{name}'s output")
    _, c, h, w = maps.shape
    if (h, w) != (side, side):
        reason = f": {reasons[h]}" if h == w and h in reasons else ""
        raise Wrong(f"{name} gives {h}x{w}, expected {side}x{side}{reason}")
    if c != channels:
        raise Wrong(f"{name} gives {c} channels, expected {channels}")


def _lacks(network, kind):
    """Whether no layer is of Paddle's `kind`, "activation" or "norm".

    A network with a layer of the student's own lacks nothing that can be told.
    """
    kinds = [type(layer).__module__ for layer in network.sublayers(include_self=True)]
    own = [module for module in kinds if not module.startswith("paddle.")]
    return not own and f"paddle.nn.layer.{kind}" not in kinds
