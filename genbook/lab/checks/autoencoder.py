"""Checks for Task 1: the encoder and the decoder of the autoencoder.

They look at what a network makes of a batch, at the operations that this took, and at the
shapes of the weights that it used. How its author wrote it does not matter.
"""

import contextlib
import inspect
import re

import numpy as np
import paddle

from .compare import Wrong, array, call, expect_shape

MOST_ERROR = 0.015  # squared, per value, of a trained model on new images
LINEAR = "without ReLU between them, two convolutions can do no more than one"
MAPS = 16  # of the first stage of the encoder, and of the decoder
# Names of Paddle's operations. Those that are linear, or only normalise, are no activations.
CONVOLUTION = "conv|pylayer"  # the second once genbook.accelerate is switched on
NOT_ACTIVE = (
    f"{CONVOLUTION}|pool|norm|add|reshape|accum|interp|pad|flatten|transpose|cast|drop|scale"
)
SATURATES = "tanh|sigmoid|relu6"


def check_encoder(AutoEncoder, seed=0):
    """Wrong, with the reason, unless it maps [N, C, H, W] to [N, 32, H/4, W/4].

    It must have 16 feature maps in its first stage, an activation and a normalisation in
    each, and not average where it pools; how else it halves the sides is free.
    AutoEncoder: the class, with a method .encode or a network .encoder. seed: of the
    inputs.
    """
    rng = np.random.default_rng(seed)
    n, wide = (int(k) for k in rng.integers(2, 5, 2))
    model = _built(AutoEncoder, 3)
    half = _Half(model, "encoder", rng.random((n, 3, 28, 28)))
    _check_maps(half.result, n, 32, 7, "the encoder", {
        28: "are both poolings missing?",
        14: "is the second pooling missing?",
        **dict.fromkeys([5, 6], "is padding=1 missing? Without it the border is cut off"),
        3: "is there one pooling too many?",
    })  # fmt: skip
    faults = _faults(half, stages=2)
    if _averages(half):
        faults["the encoder averages where it pools: a max pooling was asked for"] = 0.25
    _raise(faults)

    images = rng.random((n, 3, 28, 4 * wide))
    _expect_any_size(model, "encoder", images, [n, 32, 7, wide])
    _expect_any_channels(AutoEncoder, "encoder", images[:, :1], [n, 32, 7, wide])


def check_decoder(AutoEncoder, seed=0):
    """Wrong, with the reason, unless it maps [N, 32, h, w] to [N, C, 4h, 4w].

    Its values must lie in [0, 1] and use that range; it must have 16 feature maps, an
    activation and a normalisation in between. AutoEncoder: the class, with a method
    .decode or a network .decoder. seed: of the inputs.
    """
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 5))
    model = _built(AutoEncoder, 3)
    codes = 100 * rng.standard_normal((n, 32, 7, 7))  # large: they drive a sigmoid to its ends
    half = _decoded(model, codes)
    images = half.result
    _check_maps(images, n, 3, 28, "the decoder", {
        7: "are both transposed convolutions missing, or their stride=2?",
        14: "is the second transposed convolution missing, or its stride=2?",
        **dict.fromkeys([8, 9], "is stride=2 missing?"),
        **dict.fromkeys([29, 30, 31], "a kernel of 2 with stride 2 doubles the side exactly, "
                                      "a kernel of 3 does not"),
        56: "is there one transposed convolution too many?",
    })  # fmt: skip
    end = _wrong_end(images.min(), images.max())
    faults = _faults(half, stages=1)
    _raise({end: 0.25} | faults if end else faults)

    codes = half.inputs.numpy()[:, :, :3, :2]
    _expect_any_size(model, "decoder", codes, [n, 3, 12, 8])
    _expect_any_channels(AutoEncoder, "decoder", codes, [n, 1, 12, 8])


def check_reconstruction(model, images):
    """Wrong unless the trained `model` reconstructs images [N, C, H, W] in [0, 1].

    Returns the mean squared error over all their values, at most MOST_ERROR. It leaves
    the model in the mode in which it was.
    """
    training = [layer for layer in model.sublayers(include_self=True) if layer.training]
    model.eval()
    try:
        found = _run(model, images, "the autoencoder")
    finally:
        for layer in training:
            layer.training = True
    expect_shape(found, images.shape, "the reconstruction")
    error = float(((found - images) ** 2).mean())
    mean_image = float(((images - images.mean(0)) ** 2).mean())
    if not error <= MOST_ERROR:
        raise Wrong(
            f"the mean squared error on new images is {error:.4f}, expected at most {MOST_ERROR}; "
            f"the mean image alone has {mean_image:.4f}: is the model trained?",
            2 / 3 if error < mean_image / 2 else 0,
        )
    return error


def _expect_any_size(model, name, x, shape):
    """Wrong unless a half of the model makes this shape of x of another size."""
    try:
        result = _Half(model, name, x).result
        expect_shape(result, shape, f"the {name}'s output for {list(x.shape)}")
    except Wrong as wrong:
        raise Wrong(f"{wrong} (is a size such as 7 or 28 written out somewhere?)", 0.5) from None


def _expect_any_channels(AutoEncoder, name, x, shape):
    """Wrong unless a half of an AutoEncoder for one channel makes this shape of x.

    It costs nothing here: the training, which is for one channel, does not work then.
    """
    try:
        result = _Half(_built(AutoEncoder, 1), name, x).result
        expect_shape(result, shape, f"the {name}'s output for {list(x.shape)}")
    except Wrong as wrong:
        words = f"with in_channels=1, {wrong} (is a 3 written where in_channels belongs?)"
        raise Wrong(words, 1) from None


class _Half:
    """The encoder or the decoder of a model, and what it did with a batch.

    result: float64 numpy. operations: of Paddle, the last one first, in lower case.
    weights: the shapes of the weights that it used. inputs, output: as tensors.
    """

    def __init__(self, model, name, x):
        run = getattr(model, name.removesuffix("r"), None) or getattr(model, name, None)
        if not callable(run):
            raise Wrong(f"AutoEncoder has neither a method .{name[:-1]} nor a network .{name}")
        self.name = f"the {name}"
        self.inputs = paddle.to_tensor(x, dtype="float32", stop_gradient=False)
        self.output = call(run, self.inputs, name=self.name)
        self.result = array(self.output, self.name)
        if self.output.stop_gradient:
            raise Wrong(f"{self.name} lets no gradient through and cannot learn: use layers only")
        self.operations = _operations(self.output)
        leaves = [self.inputs, *model.parameters()]
        used = paddle.grad(self.output.sum(), leaves, retain_graph=True, allow_unused=True)
        pairs = zip(leaves, used, strict=True)
        self.weights = [list(w.shape) for w, slope in pairs if slope is not None][1:]
        if not self.weights:
            raise Wrong(f"{self.name} is still empty")

    def count(self, kind):
        """How many operations have a name in which this regular expression is found."""
        return sum(bool(re.search(kind, operation)) for operation in self.operations)


def _decoded(model, codes):
    """The decoder with codes [N, 32, 7, 7], or with codes of the width that the encoder gives.

    A wrong number of maps in the code is a mistake of the encoder alone.
    """
    try:
        return _Half(model, "decoder", codes)
    except Wrong as wrong:
        with contextlib.suppress(Wrong):
            own = _Half(model, "encoder", np.zeros((len(codes), 3, 28, 28))).result.shape
            if own[1:] != codes.shape[1:]:
                return _Half(model, "decoder", np.resize(codes, own))
        raise wrong


def _operations(tensor):
    """The names of Paddle's operations that lead to a tensor, the last one first."""
    seen, ahead = {}, [tensor.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is not None and node not in seen:
            seen[node] = node.name().lower()
            ahead += node.next_functions
    return list(seen.values())


def _faults(half, stages):
    """What a half with a right result lacks, in words, with the share that each costs."""
    faults, name = {}, half.name
    widths = {k for shape in half.weights if len(shape) == 4 for k in shape[:2]} - {3, 32}
    if MAPS not in widths:
        found = f"{min(widths)} feature maps" if widths else "no feature maps of its own"
        faults[f"{name} has {found} in between, asked for were {MAPS}"] = 0.25
    inner = half.operations
    if name == "the decoder":  # what follows its last convolution is its end
        end = next((i for i, o in enumerate(inner) if re.search(CONVOLUTION, o)), 0)
        inner = inner[end:]
    active = [operation for operation in inner if not re.search(NOT_ACTIVE, operation)]
    if not active:
        faults[f"{name} has no activation before its last convolution: {LINEAR}"] = 0.5
    elif len(active) < stages:
        faults[f"{name} has an activation after one convolution only: is a ReLU missing?"] = 0.5
    elif any(re.search(SATURATES, operation) for operation in active):
        faults[f"{name} has an activation that levels off, such as Tanh, where ReLU belongs"] = 0.25
    norms = half.count("norm")
    if norms < stages:
        few = "does not normalise" if not norms else "normalises only once"
        faults[f"{name} {few}: is BatchNorm2D missing?"] = 0.5
    return faults


def _raise(faults):
    """Raise faults, by their words and what each costs, as one Wrong."""
    if faults:
        raise Wrong("; ".join(faults), max(0.25, 1 - sum(faults.values())))


def _averages(half):
    """Whether two poolings after convolutions of 3 x 3 average.

    A number of the code depends on 10 pixels in a row then; where each pooling takes the
    largest, on 8 at most.
    """
    kernels = {k for shape in half.weights if len(shape) == 4 for k in shape[2:]}
    if kernels != {3} or half.count(CONVOLUTION) != 2 or half.count("pool") != 2:
        return False
    slopes = [paddle.grad(half.output[:, k, 3, 3].sum(), half.inputs, retain_graph=True)[0]
              for k in range(8)]  # fmt: skip
    rows = (np.stack([s.numpy() for s in slopes]) != 0).any(axis=(2, 4))  # [8, N, rows]
    return rows.sum(axis=2).max() > 8


def _wrong_end(low, high):
    """What is wrong with the end of a decoder whose values run from low to high, or ""."""
    if -1 <= low < 0 and high <= 1:
        return (
            "the decoder gives values from -1 to 1, and images are in [0, 1]: take the sigmoid "
            "at its end, not Tanh"
        )
    if low < 0 or high > 1:
        end = "a ReLU stands where its sigmoid belongs" if low == 0 else "its sigmoid is missing"
        return f"the decoder gives values from {low:.3g} to {high:.3g}, images are in [0, 1]: {end}"
    if low > 0.4:
        reason = "does a ReLU or a second sigmoid stand beside the sigmoid at its end?"
        return f"the decoder gives no value below {low:.2f}: {reason}"
    return ""


def _built(AutoEncoder, channels):
    """An AutoEncoder for so many channels, in eval mode."""
    if isinstance(AutoEncoder, paddle.nn.Layer):
        raise Wrong("give the class AutoEncoder itself, not an object made of it")
    takes_any = list(inspect.signature(AutoEncoder).parameters)
    given = [channels] if takes_any or channels != 3 else []
    model = call(AutoEncoder, *given, name=f"AutoEncoder(in_channels={channels})")
    if not isinstance(model, paddle.nn.Layer):
        raise Wrong("AutoEncoder is no class of networks: it must inherit from nn.Layer")
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
        known = h == w and h in reasons
        reason = f": {reasons[h]}" if known else ""
        raise Wrong(f"{name} gives {h}x{w}, expected {side}x{side}{reason}", known and 0.5)
    if c != channels:
        raise Wrong(f"{name} gives {c} channels, expected {channels}", 0.5)
