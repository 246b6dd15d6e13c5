import numpy as np
import paddle
import pytest
from scipy.special import softmax

from genbook.data import load
from genbook.evaluation import judge as module
from genbook.evaluation.judge import Judge, _shifted_cross_entropy, train_judge


@pytest.fixture(scope="module")
def judge():
    return train_judge(load("strokes"), steps=60)


def test_shapes_and_probabilities(judge):
    images = load("strokes", "test").images[:7]
    p = judge.probabilities(images)
    assert p.shape == (7, 15)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert Judge(10, 16).features(np.zeros((2, 1, 16, 16), "float32")).shape == (2, 64)


def test_the_classes_are_read_off_the_features(judge):
    images = load("strokes", "test").images[:7]
    weight, bias = (p.numpy().astype("float64") for p in judge.head.parameters())
    expected = softmax(judge.features(images) @ weight + bias, axis=1)
    np.testing.assert_allclose(judge.probabilities(images), expected, atol=1e-5)


def test_many_images_are_judged_as_few_are(judge):
    images = load("strokes", "test").images
    many = np.concatenate([images] * 5)
    assert len(many) > 1000
    for function in (judge.probabilities, judge.features):
        expected = np.concatenate([function(images)] * 5)
        np.testing.assert_allclose(function(many), expected, rtol=1e-4, atol=1e-5)


def test_a_short_training_already_tells_most_classes_apart(judge):
    test = load("strokes", "test")
    assert (judge.probabilities(test.images).argmax(axis=1) == test.labels).mean() > 0.8


def test_noise_is_less_legible_than_handwriting(judge):
    noise = np.random.default_rng(0).random((100, 1, 28, 28), dtype="float32")
    real = load("strokes", "test").images[:100]
    assert judge.probabilities(noise).max(axis=1).mean() < judge.probabilities(real).max(1).mean()


def test_images_are_moved_by_up_to_a_pixel_in_all_directions():
    x, seen = np.random.default_rng(0).random((2, 1, 8, 8), dtype="float32"), {}
    labels = paddle.to_tensor([2, 0])

    def judge(moved):
        ways = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        [way] = [w for w in ways if (moved.numpy() == np.roll(x, w, axis=(2, 3))).all()]
        seen[way] = seen.get(way, 0) + 1
        return paddle.to_tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]])

    paddle.seed(0)
    for _ in range(900):
        loss = _shifted_cross_entropy(judge, paddle.to_tensor(x), labels).item()
    assert len(seen) == 9 and abs(np.array([*seen.values()]) - 100).max() < 5 * np.sqrt(100)
    expected = (np.log(np.exp([1, 2, 3]).sum()) - 3 + np.log(3)) / 2
    assert loss == pytest.approx(expected, rel=1e-5)


def test_start_and_batches_follow_from_the_seed(monkeypatch):
    data, call, weights = load("strokes", most=30), {}, []
    monkeypatch.setattr(module, "fit", lambda *args, **how: call.update(how))
    for seed in (5, 5, 6):
        paddle.seed(len(weights))  # what was drawn before does not matter
        weights.append(train_judge(data, seed=seed).head.weight.numpy())
        assert call["seed"] == seed and call["steps"] == 800
    assert (weights[0] == weights[1]).all() and (weights[0] != weights[2]).any()


def test_three_tenths_of_the_maps_are_left_out_in_training_alone():
    paddle.seed(0)
    judge, seen = Judge(10, 16), []
    [linear] = [layer for layer in judge.body if isinstance(layer, paddle.nn.Linear)]
    linear.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].numpy()))
    x = paddle.rand([50, 1, 16, 16])
    judge(x)
    judge.eval()
    judge(x)
    noisy, whole = seen
    left_out = (noisy == 0)[whole > 0]
    assert abs(left_out.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / left_out.size)
    np.testing.assert_allclose(noisy[noisy > 0], whole[noisy > 0] / 0.7, rtol=1e-5)
