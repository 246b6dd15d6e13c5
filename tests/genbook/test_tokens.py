import itertools
import re

import numpy as np
import paddle
import pytest

from genbook.tokens import (
    Block,
    TokenNetwork,
    hide,
    masked_bound,
    sample_by_unmasking,
    sample_in_order,
    token_nll,
)

SIZE, SIDES, LENGTH, CLASSES = 3, (2, 2), 4, 2
CODES = np.array(list(itertools.product(range(SIZE), repeat=LENGTH)))  # all 81


def a_model(causal, width=8, blocks=2):
    """A network with weights so large that everything reaches its output."""
    paddle.seed(0)
    model = TokenNetwork(SIZE, SIDES, CLASSES, causal, width=width, blocks=blocks)
    for parameter in model.parameters():
        parameter.set_value(parameter + 0.5 * paddle.randn(parameter.shape))
    model.eval()
    return model


def whole(numbers):
    return paddle.to_tensor(np.asarray(numbers, dtype="int64"))


def labels(n, label=0):
    return paddle.full([n], label, dtype="int64")


def log_probabilities(logits):
    logits = np.asarray(logits, dtype="float64")
    return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)


@pytest.mark.parametrize("causal", [True, False])
def test_what_the_logits_depend_on(causal):
    model, code = a_model(causal), np.array([[0, 1, 2, 0]])
    before = model(whole(code), labels(1)).numpy()[0]
    for i in range(LENGTH):
        other = code.copy()
        other[0, i] = (code[0, i] + 1) % SIZE
        moved = np.abs(model(whole(other), labels(1)).numpy()[0] - before).max(axis=1)
        seen = np.arange(LENGTH) > i if causal else np.full(LENGTH, True)
        np.testing.assert_array_equal(moved > 1e-4, seen)
    assert np.abs(model(whole(code), labels(1, 1)).numpy()[0] - before).max(axis=1).min() > 1e-3


@pytest.mark.parametrize("causal", [True, False])
def test_the_network_is_as_the_chapter_describes_it(causal):
    """On a grid of 3 x 4, written out in plain NumPy on its weights, place by place."""
    paddle.seed(1)
    model = TokenNetwork(SIZE, (3, 4), CLASSES, causal, width=5, blocks=2)
    for parameter in model.parameters():
        parameter.set_value(parameter + 0.5 * paddle.randn(parameter.shape))
    code, y = np.random.default_rng(0).integers(0, SIZE, (2, 12)), [1, 0]
    w = {name: p.numpy().astype("float64") for name, p in model.named_parameters()}
    around = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 0)]
    around += [] if causal else [(0, 1), (1, -1), (1, 0), (1, 1)]

    def linear(name, rows):
        return rows @ w[f"{name}.weight"] + w[f"{name}.bias"]

    expected = []
    for tokens, label in zip(code, y):
        seen = [SIZE, *tokens[:-1]] if causal else tokens
        h = w["token.weight"][seen] + w["place.weight"] + w["label.weight"][label]
        for name in ("blocks.0", "blocks.1"):
            found = []
            for r in range(3):
                for c in range(4):
                    parts = [
                        h[4 * (r + i) + c + j] if 0 <= r + i < 3 and 0 <= c + j < 4 else np.zeros(5)
                        for i, j in around
                    ]
                    inner = linear(f"{name}.look", np.concatenate(parts))
                    found.append(linear(f"{name}.mix", inner / (1 + np.exp(-inner))))
            h = h + np.array(found)
        away = h - h.mean(axis=1, keepdims=True)
        scaled = away / np.sqrt((away**2).mean(axis=1, keepdims=True) + 1e-5)
        expected.append(linear("last", scaled * w["norm.weight"] + w["norm.bias"]))
    np.testing.assert_allclose(model(whole(code), whole(y)), expected, rtol=1e-3, atol=1e-3)


def test_the_layers_of_the_text():
    model = TokenNetwork(64, (4, 4), 10, True)
    assert model.last.weight.shape == [48, 64] and model.token.weight.shape == [65, 48]
    assert [len(model.blocks), model.length, model.place.weight.shape] == [3, 16, [16, 48]]


def test_a_block_starts_as_its_shortcut():
    h = paddle.randn([2, 3, 4, 8])
    np.testing.assert_array_equal(Block(8, causal=False)(h), h)


def test_token_nll_is_the_surprise_of_each_token():
    model = a_model(True)
    logp = log_probabilities(model(whole(CODES), labels(81)))
    expected = -np.take_along_axis(logp, CODES[..., np.newaxis], axis=2)[..., 0]
    found = token_nll(model, whole(CODES), labels(81))
    assert found.shape == [81, LENGTH]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def shares(codes):
    """How often each of the 81 codes occurs."""
    place = codes.numpy() @ SIZE ** np.arange(LENGTH)[::-1]
    return np.bincount(place, minlength=81) / len(place)


def close(found, expected, n):
    error = np.sqrt(expected * (1 - expected) / n)
    assert (np.abs(found - expected) < 5 * error + 2 / n).all()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_in_order_have_the_probabilities_of_the_model(temperature):
    model, n = a_model(True), 40_000
    logp = log_probabilities(model(whole(CODES), labels(81)).numpy() / temperature)
    expected = np.exp(np.take_along_axis(logp, CODES[..., np.newaxis], axis=2).sum(axis=(1, 2)))
    close(shares(sample_in_order(model, labels(n), temperature)), expected, n)


def after_one_reveal(model, codes, steps, label=0):
    """The probability of each code in the sampler, by all ways to reveal its tokens."""

    def chance(code, hidden, t):
        if t == 0:
            return 1.0
        tokens = np.where(hidden, SIZE, code)
        logp = log_probabilities(model(whole([tokens]), labels(1, label)))[0]
        total, places = 0.0, np.flatnonzero(hidden)
        for shown in itertools.product([False, True], repeat=len(places)):
            if t == 1 and not all(shown):
                continue
            at = places[list(shown)] if len(places) else places
            weight = (1 / t) ** len(at) * (1 - 1 / t) ** (len(places) - len(at))
            left = hidden.copy()
            left[at] = False
            said = np.exp(logp[at, code[at]].sum())
            total += weight * said * chance(code, left, t - 1)
        return total

    return np.array([chance(code, np.full(LENGTH, True), steps) for code in codes])


@pytest.mark.parametrize("steps", [1, 2])
def test_samples_by_unmasking_have_the_probabilities_of_the_process(steps):
    model, n = a_model(False), 40_000
    with paddle.no_grad():
        expected = after_one_reveal(model, CODES, steps)
        found = shares(sample_by_unmasking(model, labels(n), steps))
    assert expected.sum() == pytest.approx(1, abs=1e-4)
    close(found, expected, n)


def test_samples_follow_their_labels():
    for causal, draw in (
        (True, sample_in_order),
        (False, lambda m, y: sample_by_unmasking(m, y, 4)),
    ):
        model, n = a_model(causal), 4000
        both = draw(model, whole([0, 1] * n))
        one = draw(model, labels(n, 1))
        gap = np.abs(shares(both[1::2]) - shares(one)).sum()
        assert gap < np.abs(shares(both[0::2]) - shares(one)).sum() / 2


def test_hide_puts_the_mask_where_it_is_asked_to():
    hidden = paddle.to_tensor([[True, False], [False, False]])
    np.testing.assert_array_equal(hide(whole([[1, 2], [0, 1]]), hidden, 9), [[9, 2], [0, 1]])


class Echo:
    """A network that keeps what it is shown; the surprise of each token is the same."""

    size = SIZE

    def __init__(self):
        self.seen = []

    def __call__(self, tokens, labels):
        self.seen.append(tokens.numpy())
        return paddle.zeros([*tokens.shape, SIZE])


def test_masked_bound_hides_as_it_should():
    n, echo = 20_000, Echo()
    code = whole(np.tile([0, 1, 2, 1], (n, 1)))
    draws = masked_bound(echo, code, labels(n)).numpy()
    np.testing.assert_allclose(draws, LENGTH * np.log(SIZE), rtol=1e-5)  # whatever is hidden
    hidden = echo.seen[0] == SIZE
    np.testing.assert_array_equal(echo.seen[0][~hidden], code.numpy()[~hidden])
    counts = np.bincount(hidden.sum(axis=1), minlength=LENGTH + 1) / n
    np.testing.assert_allclose(counts, [0, *[1 / LENGTH] * LENGTH], atol=0.02)
    np.testing.assert_allclose(hidden.mean(axis=0), 0.625, atol=0.02)
    together = (hidden[:, 0] & hidden[:, 1]).mean()  # sum over k of (k / 4) (k - 1) / 3 / 4
    assert together == pytest.approx((2 + 6 + 12) / 48, abs=0.02)

    draws = masked_bound(echo, code, labels(n), 2).numpy()
    hidden = echo.seen[1] == SIZE
    weight = np.where(hidden.all(axis=1), np.nan, 2.0)  # t = 1, unless all are hidden
    some = ~np.isnan(weight) & hidden.any(axis=1)
    np.testing.assert_allclose(draws[some], 2 * np.log(SIZE) * hidden[some].sum(axis=1), rtol=1e-5)
    assert hidden.mean() == pytest.approx(0.75, abs=0.02)
    assert draws.mean() == pytest.approx(LENGTH * np.log(SIZE), rel=0.03)


REFUSED = {
    "no tokens": (lambda: TokenNetwork(0, (2, 2), 2, True), "no such network: size=0"),
    "no blocks": (lambda: TokenNetwork(3, (2, 2), 2, True, blocks=0), "blocks=0"),
    "no rows": (lambda: TokenNetwork(3, (0, 2), 2, True), "sides=(0, 2)"),
    "another length": (lambda: a_model(True)(whole([[0, 1]]), labels(1)), "[1, 4]"),
    "a token beyond the mask": (lambda: a_model(True)(whole([[0, 1, 2, 4]]), labels(1)), "0 to 3"),
    "a negative token": (lambda: a_model(False)(whole([[0, 1, 2, -1]]), labels(1)), "-1 to 2"),
    "float tokens": (lambda: a_model(True)(paddle.zeros([1, 4]), labels(1)), "whole numbers"),
    "a label beyond": (lambda: a_model(True)(whole([[0, 1, 2, 0]]), labels(1, 2)), "0 to 1"),
    "two labels": (lambda: a_model(True)(whole([[0, 1, 2, 0]]), labels(2)), "labels must be whole"),
    "temperature 0": (lambda: sample_in_order(a_model(True), labels(1), 0), "temperature must be"),
    "no steps": (lambda: sample_by_unmasking(a_model(False), labels(1), 0), "steps must be"),
}


@pytest.mark.parametrize("call, says", REFUSED.values(), ids=REFUSED)
def test_wrong_inputs_are_refused(call, says):
    with pytest.raises(ValueError, match=re.escape(says)):
        call()


def test_other_kinds_of_numbers_mean_the_same():
    model = a_model(True)
    usual = model(whole(CODES[:2]), labels(2))
    np.testing.assert_array_equal(model(CODES[:2].tolist(), [0, 0]), usual)
    np.testing.assert_array_equal(model(whole(CODES[:2]).astype("int32"), labels(2)), usual)
