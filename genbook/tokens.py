"""Two models of a code made of tokens: one token after the other, or masked ones.

A code is int64 [N, L], its tokens are from 0 to size - 1; the number `size` is the
mask and stands for a token that is not known yet. Labels are int64 [N]. Sources:
Austin et al. (2021), arXiv:2107.03006, "D3PM", and Sahoo et al. (2024),
arXiv:2406.07524, "MDLM", for diffusion by masking; Hoogeboom et al. (2022),
arXiv:2110.02037, for any order.
"""

import paddle
import paddle.nn as nn
import paddle.nn.functional as F


class Block(nn.Layer):
    """Each place of a grid looks at its neighbours, around a shortcut.

    width: of the features. causal: of the nine places around and at it, a place sees
    those up to itself only, in the order of reading.
    """

    def __init__(self, width, causal):
        super().__init__()
        steps = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        self.around = steps[:5] if causal else steps
        self.look = nn.Linear(len(self.around) * width, width)
        # Starting at zero makes the block start as its shortcut, which trains faster.
        zero = nn.initializer.Constant(0.0)
        self.mix = nn.Linear(width, width, weight_attr=zero)

    def forward(self, h):
        """[N, H, W, width] -> [N, H, W, width]."""
        rows, columns = h.shape[1:3]
        wide = F.pad(h, [1, 1, 1, 1], data_format="NHWC")  # zeros all around
        seen = [
            wide[:, 1 + i : 1 + i + rows, 1 + j : 1 + j + columns]
            for i, j in self.around
        ]
        return h + self.mix(F.silu(self.look(paddle.concat(seen, axis=3))))


class TokenNetwork(nn.Layer):
    """Logits of the token at each place, from other tokens and the label.

    size: of the codebook. sides: (H, W) of the grid, with L = H * W places. causal: if
    True the logits at a place depend on tokens before it only; if False on all that are
    not masked. Raises ValueError for sizes below 1. The causal one is a small PixelCNN:
    van den Oord et al. (2016), arXiv:1601.06759.
    """

    def __init__(self, size, sides, classes, causal, width=48, blocks=3):
        super().__init__()
        if min(size, *sides, classes, width, blocks) < 1:
            found = f"{size=}, {sides=}, {classes=}, {width=}, {blocks=}"
            raise ValueError(f"no such network: {found}")
        self.size, self.sides, self.classes = size, tuple(sides), classes
        self.length, self.causal = sides[0] * sides[1], causal
        self.token = nn.Embedding(size + 1, width)
        self.label = nn.Embedding(classes, width)
        self.place = nn.Embedding(self.length, width)
        self.blocks = nn.Sequential(*[Block(width, causal) for _ in range(blocks)])
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, size)

    def forward(self, tokens, labels):
        """tokens: int64 [N, L]. labels: int64 [N]. Returns [N, L, size].

        Raises ValueError for tokens or labels of another shape, type or range.
        """
        tokens = _whole(tokens, [len(tokens), self.length], "tokens", self.size)
        labels = _whole(labels, [len(tokens)], "labels", self.classes - 1)
        if self.causal:  # a place is told the token before it; the first, the mask
            start = paddle.full([len(tokens), 1], self.size, dtype="int64")
            tokens = paddle.concat([start, tokens[:, :-1]], axis=1)
        h = self.token(tokens) + self.place.weight + self.label(labels).unsqueeze(1)
        grid = self.blocks(h.reshape([len(h), *self.sides, -1]))
        return self.last(self.norm(grid.reshape(h.shape)))


def token_nll(model, tokens, labels):
    """-log p of each token in nats, given what the model sees: [N, L]."""
    return _surprise(model(tokens, labels), tokens)


def _surprise(logits, tokens):
    return F.cross_entropy(logits, tokens, reduction="none", axis=-1).squeeze(-1)


def sample_in_order(model, labels, temperature=1.0):
    """A code for each label from a causal model, token by token: int64 [N, L].

    temperature: the logits are divided by it, above 0; 1 draws from the model.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}")
    tokens = paddle.full([len(labels), model.length], model.size, dtype="int64")
    with paddle.no_grad():
        for i in range(model.length):
            logits = model(tokens, labels)[:, i] / temperature  # [N, size]
            tokens[:, i] = _draw(logits)
    return tokens


def _draw(logits):
    """A token from each row of logits [M, size]: int64 [M]."""
    return paddle.multinomial(F.softmax(logits, axis=-1)).squeeze(-1)


def hide(tokens, hidden, mask):
    """The tokens, with the number `mask` where `hidden` [N, L] is True."""
    return paddle.where(hidden, paddle.full_like(tokens, mask), tokens)


def masked_bound(model, tokens, labels, steps=None):
    """A draw of the bound on -log p(tokens | labels) in nats: [N].

    model: one that is not causal. steps: T, with the levels 1 - t / T; None for the
    limit of infinitely many, in which the number of hidden tokens is uniform from 1 to
    L. One t, or one number, is drawn for each code. Sahoo et al. (2024), equation 8.
    """
    n, length = tokens.shape
    if steps is None:
        count = paddle.randint(1, length + 1, [n, 1])
        rank = paddle.rand([n, length]).argsort(axis=1).argsort(axis=1)
        hidden, weight = rank < count, length / count
    else:
        t = paddle.randint(1, steps + 1, [n, 1])
        hidden, weight = paddle.rand([n, length]) < t / steps, steps / t
    nll = _surprise(model(hide(tokens, hidden, model.size), labels), tokens)
    return (weight * hidden.astype("float32") * nll).sum(axis=1)


def sample_by_unmasking(model, labels, steps):
    """A code for each label from a model that is not causal: int64 [N, L].

    All begin as masks. In step t = T, ..., 1 each mask is replaced with the probability
    1 / t, by tokens that are drawn independently of each other. steps: T, from 1.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    tokens = paddle.full([len(labels), model.length], model.size, dtype="int64")
    with paddle.no_grad():
        for t in range(steps, 0, -1):
            logits = model(tokens, labels)
            drawn = _draw(logits.reshape([-1, model.size])).reshape(tokens.shape)
            show = (tokens == model.size) & (paddle.rand(tokens.shape) * t < 1)
            tokens = paddle.where(show, drawn, tokens)
    return tokens


def _whole(numbers, shape, name, most):
    """int64 of this shape; ValueError unless all are whole and from 0 to `most`."""
    numbers = numbers if paddle.is_tensor(numbers) else paddle.to_tensor(numbers)
    if numbers.shape != shape or numbers.dtype not in (paddle.int32, paddle.int64):
        found = f"{numbers.dtype} {list(numbers.shape)}"
        raise ValueError(f"{name} must be whole numbers {shape}, got {found}")
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0 or high > most:
        raise ValueError(f"{name} must be from 0 to {most}, got {low} to {high}")
    return numbers.astype("int64")
