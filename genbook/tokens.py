"""Two models of a code made of tokens: one token after the other, or masked ones.

A code is int64 [N, L], its tokens are from 0 to size - 1; the number `size` is the
mask and stands for a token that is not known yet. Labels are int64 [N]. Sources:
Vaswani et al. (2017), arXiv:1706.03762, for the network; Austin et al. (2021),
arXiv:2107.03006, "D3PM", and Sahoo et al. (2024), arXiv:2406.07524, "MDLM", for
diffusion by masking; Hoogeboom et al. (2022), arXiv:2110.02037, for any order.
"""

import paddle
import paddle.nn as nn
import paddle.nn.functional as F


class Block(nn.Layer):
    """Attention between the places of a code and an MLP at each, around shortcuts.

    width: of the features. causal: each place sees itself and those before it only.
    """

    def __init__(self, width, causal):
        super().__init__()
        self.causal = causal
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.Silu(), nn.Linear(4 * width, width)
        )

    def forward(self, h):
        """[N, L, width] -> [N, L, width]."""
        inner = self.norm1(h)
        q, k, v = self.query(inner), self.key(inner), self.value(inner)
        scores = q @ k.transpose([0, 2, 1]) / h.shape[2] ** 0.5  # [N, L, L]
        if self.causal:
            later = paddle.triu(paddle.ones(scores.shape[1:]), diagonal=1)
            scores = scores - 1e9 * later
        h = h + F.softmax(scores, axis=2) @ v
        return h + self.mlp(self.norm2(h))


class TokenTransformer(nn.Layer):
    """Logits of the token at each place, from the others and the label.

    size: of the codebook. length: L. causal: if True the logits at a place depend on
    the tokens before it only; if False on all that are not masked. Raises ValueError
    for sizes below 1.
    """

    def __init__(self, size, length, classes, causal, width=64, blocks=2):
        super().__init__()
        if min(size, length, classes, width, blocks) < 1:
            found = f"{size=}, {length=}, {classes=}, {width=}, {blocks=}"
            raise ValueError(f"no such network: {found}")
        self.size, self.length, self.classes = size, length, classes
        self.causal = causal
        self.token = nn.Embedding(size + 1, width)
        self.label = nn.Embedding(classes, width)
        self.place = nn.Embedding(length, width)
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
        return self.last(self.norm(self.blocks(h)))


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
