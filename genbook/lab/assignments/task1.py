"""Task 1: the autoencoder."""

from .cells import answer, checked, given, question, setup, test, text
from .sources import blank_arguments, definition

CHECKS = "genbook.lab.checks.autoencoder"


def cells(hidden):
    """The cells of the assignment. hidden: seeds of the hidden tests."""
    network = definition("genbook.autoencoder.AutoEncoder")
    for part in ("self.encoder", "self.decoder"):
        network = blank_arguments(network, part)
    return [
        text("intro", """
# Task 1: an autoencoder

You write the two halves of an autoencoder, follow the shape of an image through them, train the
network, and compare what comes out with what went in.

Write only where it says `YOUR CODE HERE` or `YOUR ANSWER HERE`; you may add cells of your own.
Cells that begin with `def check():` are tests. Run one, and it shows the points, and says in words what is
wrong. An answer that is right in part gets a part of them, however it is written. Before you hand in, restart the kernel and run all cells from top to bottom.
"""),
        setup(),
        text("layers", r"""
## The network

The **encoder** has two stages. Each is a convolution (kernel 3, stride 1, padding 1), a ReLU, a batch
normalisation, and a max pooling of $2 \times 2$. The first makes 16 feature maps, the second 32.

The **decoder** has a transposed convolution (kernel 2, stride 2) to 16 feature maps, a ReLU, a batch
normalisation, and a second transposed convolution to `in_channels` images. A sigmoid at the end keeps
the values between 0 and 1.

You may write them as a list of layers, as below, as classes of your own, or as functions in `encode` and
`decode`. Other ways to halve and to double the sides are as good, and so are activations that do not level
off, and other normalisations. A missing layer costs points, and so do average pooling, Tanh, and another
number of maps.

A filter of size $k$ with padding $p$ and stride $s$ turns a side of $n$ pixels into

$$\left\lfloor \frac{n + 2p - k}{s} \right\rfloor + 1 ,$$

and a transposed convolution without padding turns it into $(n - 1)\, s + k$. An image of
$28 \times 28$ gets a code of $32 \times 7 \times 7$.
"""),
        answer("network", network),
        checked("encoder", 4, f"{CHECKS}.check_encoder", "AutoEncoder", hidden),
        checked("decoder", 4, f"{CHECKS}.check_decoder", "AutoEncoder", hidden),
        text("shapes-intro", "## Watch the shapes\n\nOne digit goes through the network, layer by "
             "layer."),
        given("shapes", """
digits, test = load("digits"), load("digits", "test")

network = AutoEncoder(in_channels=1)
network.eval()


def print_shape(layer, inputs, output):
    print(f"{type(layer).__name__:18s}", output.shape)


for layer in network.sublayers():
    if not layer.sublayers():  # layers that hold others only pass the image on
        layer.register_forward_post_hook(print_shape)
image = paddle.to_tensor(digits.images[:1])
print(f"{'image':18s}", image.shape)
network(image)
"""),
        *question("sizes", 3, """
Which layers change the height and the width, and by which formula? How many numbers has the code of
this image, and how many has the image? Does this autoencoder compress it?
""", """
Each pooling halves the side, since floor((n - 2) / 2) + 1 = n / 2, and each transposed convolution
doubles it, since (n - 1) 2 + 2 = 2n. The convolutions keep it: n + 2 - 3 + 1 = n. The code has
32 x 4 x 4 = 512 numbers, the image 256. It does not compress; it describes the image by features.
"""),
        text("train-intro", "## Train\n\nThe loss is the mean squared error over all pixels."),
        given("train", """
def mean_squared_error(model, x):
    return (model(x) - x).square().mean()


paddle.seed(0)
model = AutoEncoder(in_channels=1)
history = fit(
    model, mean_squared_error, digits.images, steps=300, batch_size=64, lr=2e-3
)
loss_curves(history, ylabel="mean squared error")
"""),
        test("reconstruction", 3,
             ["genbook.lab.checks.compare.marks",
              *(f"{CHECKS}.check_{n}" for n in ("encoder", "decoder", "reconstruction"))],
             """
assert isinstance(model, AutoEncoder), "model is no AutoEncoder"
for check_half in (check_encoder, check_decoder):
    wrong = verdict(check_half, AutoEncoder)
    if wrong and not wrong.share:
        raise wrong
""", value="marks(3, check_reconstruction, model, [test.images])"),
        text("compare-intro", "## Compare"),
        given("compare-figure", """
with paddle.no_grad():
    decoded = model(paddle.to_tensor(test.images[:10]))
    codes = model.encode(paddle.to_tensor(digits.images))
    mean, spread = codes.mean(axis=0), codes.std(axis=0)
    random = model.decode(mean + spread * paddle.randn([10, *mean.shape]))
image_rows({"original": test.images[:10], "decoded": decoded, "random codes": random})
"""),
        *question("compare", 3, """
What is lost between the original and the decoded digits? The last row is decoded from random codes with
the mean and the spread of the training codes. Why are these no digits, although the loss is small?
""", """
Fine detail at the edges is lost; the digits stay readable. The loss asks that codes which occur can be
decoded. It says nothing of the other codes, and independent draws miss that the components of real codes
depend on each other.
"""),
    ]  # fmt: skip
