import numpy as np
import pytest

from genbook.data import load
from genbook.judge import Judge, train_judge


@pytest.fixture(scope="module")
def judge():
    return train_judge(load("strokes"), steps=60)


def test_shapes_and_probabilities(judge):
    images = load("strokes", "test").images[:7]
    p = judge.probabilities(images)
    assert p.shape == (7, 15)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert Judge(10, 16).features(np_to_paddle(np.zeros((2, 1, 16, 16)))).shape == [2, 64]


def np_to_paddle(array):
    import paddle

    return paddle.to_tensor(array, dtype="float32")


def test_a_short_training_already_tells_most_classes_apart(judge):
    test = load("strokes", "test")
    assert (judge.probabilities(test.images).argmax(axis=1) == test.labels).mean() > 0.8


def test_noise_is_less_legible_than_handwriting(judge):
    noise = np.random.default_rng(0).random((100, 1, 28, 28), dtype="float32")
    real = load("strokes", "test").images[:100]
    assert judge.probabilities(noise).max(axis=1).mean() < judge.probabilities(real).max(1).mean()
