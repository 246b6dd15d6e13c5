import numpy as np
import pytest

from genbook.data import load
from genbook.evaluation.judge import Judge, train_judge


@pytest.fixture(scope="module")
def judge():
    return train_judge(load("strokes"), steps=60)


def test_shapes_and_probabilities(judge):
    images = load("strokes", "test").images[:7]
    p = judge.probabilities(images)
    assert p.shape == (7, 15)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-5)
    assert Judge(10, 16).features(np.zeros((2, 1, 16, 16), "float32")).shape == (2, 64)


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
