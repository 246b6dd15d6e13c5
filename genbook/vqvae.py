"""The VQ-VAE: an image as a grid of tokens, each of which names a vector of a codebook.

Images are float32 [N, C, H, W] in [0, 1], with H and W multiples of 4. A grid has
H/4 x W/4 places; its tokens are int64 [N, H/4 * W/4], row by row. Sources: van den
Oord, Vinyals & Kavukcuoglu (2017), arXiv:1711.00937; for straight-through gradients
Bengio, Leonard & Courville (2013), arXiv:1308.3432.
"""

import paddle
import paddle.nn as nn
import paddle.nn.functional as F


def straight_through(h, e):
    """The values of e with the gradient of h: both [M, d]. Bengio et al. (2013)."""
    return h + (e - h).detach()


class Codebook(nn.Layer):
    """`size` vectors [size, dim], each a moving average of the vectors that chose it.

    decay: of the averages, in [0, 1). restart: a vector that was chosen less than so
    often in a step, on average, moves to one of those that choose; 0 for never. Van den
    Oord et al. (2017), appendix A.1, for the averages. Raises ValueError for others.
    """

    def __init__(self, size, dim, decay=0.99, restart=0.3):
        super().__init__()
        if size < 1 or dim < 1 or not 0 <= decay < 1 or not restart >= 0:
            found = f"{size=}, {dim=}, {decay=}, {restart=}"
            raise ValueError(f"no such codebook: {found}")
        self.decay, self.restart = decay, restart
        self.register_buffer("vectors", paddle.randn([size, dim]))
        self.register_buffer("counts", paddle.ones([size]))
        self.register_buffer("sums", self.vectors.clone())

    def nearest(self, h):
        """The token of the nearest vector of each row: [M, dim] -> int64 [M]."""
        # |h - e|^2 = |h|^2 - 2 h e + |e|^2, of which the first is the same for all e.
        lengths = self.vectors.square().sum(axis=1)
        return (lengths - 2 * h @ self.vectors.T).argmin(axis=1)

    def update(self, h, tokens):
        """Move the vectors towards the rows h [M, dim] that chose them, tokens [M]."""
        with paddle.no_grad():
            chosen = F.one_hot(tokens, len(self.vectors))  # [M, size]
            new = 1 - self.decay
            counts = self.decay * self.counts + new * chosen.sum(axis=0)
            sums = self.decay * self.sums + new * chosen.T @ h
            unused = (counts < self.restart).astype("float32")
            some = h[paddle.randint(0, len(h), [len(counts)])]  # [size, dim]
            counts = counts + unused * (1 - counts)
            sums = sums + unused.unsqueeze(1) * (some - sums)
            self.counts.set_value(counts)
            self.sums.set_value(sums)
            self.vectors.set_value(sums / counts.unsqueeze(1))


class VQVAE(nn.Layer):
    """An encoder to a grid of vectors, a Codebook, and a decoder.

    channels: C. size, dim, restart: of the codebook. width: of the layers. In training
    mode each forward pass updates the codebook.
    """

    def __init__(self, channels=1, size=64, dim=8, width=16, restart=0.3):
        super().__init__()
        self.channels, self.dim = channels, dim
        self.encoder = nn.Sequential(
            nn.Conv2D(channels, width, 4, stride=2, padding=1),  # [N, width, H/2, W/2]
            nn.ReLU(),
            nn.Conv2D(width, 2 * width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2D(2 * width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2D(2 * width, dim, 1),  # [N, dim, H/4, W/4]
        )
        self.codebook = Codebook(size, dim, restart=restart)
        self.decoder = nn.Sequential(
            nn.Conv2D(dim, 2 * width, 3, padding=1),  # [N, 2 width, H/4, W/4]
            nn.ReLU(),
            nn.Conv2D(2 * width, 2 * width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2DTranspose(2 * width, width, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2DTranspose(width, channels, 4, stride=2, padding=1),
            nn.Sigmoid(),  # [N, channels, H, W]
        )

    def encode(self, x):
        """The encoder's vectors, place by place: [N, C, H, W] -> [N, H/4, W/4, dim]."""
        return self.encoder(_images(x, self.channels)).transpose([0, 2, 3, 1])

    def tokens(self, x):
        """The code of each image: [N, C, H, W] -> int64 [N, H/4 * W/4]."""
        h = self.encode(x)
        return self.codebook.nearest(h.reshape([-1, self.dim])).reshape([len(h), -1])

    def decode(self, tokens, sides):
        """The image of each code: [N, L] -> [N, C, H, W], sides: (H/4, W/4)."""
        size = len(self.codebook.vectors)
        tokens = _tokens(tokens, sides[0] * sides[1], size)
        e = self.codebook.vectors[tokens.flatten()]
        grid = e.reshape([len(tokens), *sides, self.dim])
        return self.decoder(grid.transpose([0, 3, 1, 2]))

    def forward(self, x):
        """Encode, choose, decode. Returns (x_hat, h, e, tokens).

        h and e: [M, dim], what the encoder says at each of the M places of all images,
        and the vectors chosen there. tokens: [M]. Gradients flow from x_hat to h.
        """
        grid = self.encode(x)  # [N, H/4, W/4, dim]
        h = grid.reshape([-1, self.dim])
        tokens = self.codebook.nearest(h)
        e = self.codebook.vectors[tokens]
        passed = straight_through(h, e).reshape(grid.shape).transpose([0, 3, 1, 2])
        if self.training:
            self.codebook.update(h, tokens)
        return self.decoder(passed), h, e, tokens


def vqvae_loss(model, x, beta=0.25):
    """The loss of a VQVAE on a batch in nats per image, and what it is made of.

    x: [N, C, H, W] in [0, 1]. beta: the weight of the commitment, >= 0. Returns a dict
    of scalars, means over the batch: "loss" is "reconstruction" + beta * "commitment",
    and "perplexity" says how many vectors are in use. The codebook learns by its moving
    averages instead of a third term. Van den Oord et al. (2017), equation 3.
    """
    if not beta >= 0:
        raise ValueError(f"beta must be at least 0, got {beta}")
    x_hat, h, e, tokens = model(x)
    reconstruction = F.binary_cross_entropy(x_hat, x, reduction="sum") / len(x)
    commitment = (h - e.detach()).square().sum() / len(x)
    used = perplexity(tokens, len(model.codebook.vectors))
    loss = reconstruction + beta * commitment
    return {
        "loss": loss, "reconstruction": reconstruction, "commitment": commitment,
        "perplexity": used,
    }


def perplexity(tokens, size):
    """exp of the entropy of the tokens' shares: 1 for a single token, at most `size`.

    tokens: whole numbers of any shape from 0 to size - 1. Returns a scalar tensor.
    """
    counts = paddle.bincount(tokens.flatten(), minlength=size).astype("float32")
    share = counts / counts.sum()
    return paddle.exp(-(share * share.clip(min=1e-30).log()).sum())


def _images(x, channels):
    """x as float32; ValueError unless [N, channels, H, W] with sides in fours."""
    if not paddle.is_tensor(x) or not x.is_floating_point():
        raise ValueError(f"a tensor of floats is expected, got {type(x)}")
    if x.ndim != 4 or x.shape[1] != channels or x.shape[2] % 4 or x.shape[3] % 4:
        expected = f"[N, {channels}, H, W] with H and W multiples of 4"
        raise ValueError(f"expected {expected}, got {list(x.shape)}")
    return x.astype("float32") if x.dtype == paddle.float64 else x


def _tokens(tokens, length, size):
    """int64 [N, length]; ValueError unless all are from 0 to size - 1."""
    tokens = tokens if paddle.is_tensor(tokens) else paddle.to_tensor(tokens)
    whole = tokens.dtype in (paddle.int32, paddle.int64)
    if tokens.ndim != 2 or tokens.shape[1] != length or not whole:
        found = f"{tokens.dtype} {list(tokens.shape)}"
        raise ValueError(f"tokens must be whole numbers [N, {length}], got {found}")
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= size:
        raise ValueError(f"tokens must be from 0 to {size - 1}, got {low} to {high}")
    return tokens.astype("int64")
