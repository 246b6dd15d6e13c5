import contextlib
import os
import subprocess
import sys

import numpy as np
import paddle
import paddle.nn as nn
import pytest

from genbook import accelerate
from genbook.training import fit, loop, trainer
from genbook.training.loop import TrainingError, batches, learning_rate

IMAGES = np.random.default_rng(0).random((60, 1, 4, 4), dtype="float32")


class Small(nn.Layer):
    """A tiny network with a buffer, to be trained in a fraction of a second."""

    def __init__(self, width=6):
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(16, width), nn.BatchNorm1D(width), nn.Linear(width, 16)
        )

    def forward(self, x):
        return self.body(x).reshape(x.shape)


def noisy_loss(model, x):
    """A loss that draws noise, as those of the book do."""
    error = (model(x + 0.1 * paddle.randn(x.shape)) - x).square().mean()
    return {"loss": error, "twice": 2 * error}


def trained(seed=0, **settings):
    paddle.seed(seed)
    model = Small()
    history = fit(model, noisy_loss, IMAGES, **{"steps": 30, "batch_size": 16, **settings})
    return model, history


def weights(model):
    return {k: v.numpy().copy() for k, v in model.state_dict().items()}


def same(a, b):
    return all(np.array_equal(a[k], b[k]) for k in a.keys() | b.keys())


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_same_seed_gives_the_same_bits(ema):
    (one, h1), (two, h2) = trained(ema=ema), trained(ema=ema)
    assert same(weights(one), weights(two))
    np.testing.assert_array_equal(h1["loss"], h2["loss"])


def test_another_seed_gives_other_batches_and_noise():
    assert not np.array_equal(trained()[1]["loss"], trained(seed=0, steps=31)[1]["loss"][:30])
    paddle.seed(0)
    model = Small()
    history = fit(model, noisy_loss, IMAGES, steps=30, batch_size=16, seed=1)
    assert not np.array_equal(trained()[1]["loss"], history["loss"])


def test_training_lowers_the_loss():
    _, history = trained(steps=300, lr=1e-2)
    assert history["loss"][-30:].mean() < 0.5 * history["loss"][:10].mean()


def test_two_steps_of_adam_by_hand():
    # One weight w with the loss (w - 1)^2 / 2, whose gradient is w - 1.
    model = nn.Linear(1, 1, bias_attr=False)
    model.weight.set_value(paddle.zeros([1, 1]))
    loss = lambda model, x: 0.5 * (model(paddle.ones([1, 1])) - 1).square().mean()  # noqa: E731
    fit(model, loss, np.zeros((1, 1), "float32"), steps=2, batch_size=1, lr=0.1)
    w = m = v = 0.0
    for step in (0, 1):
        gradient = w - 1
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
        w -= learning_rate(step, 2, 0.1) * m_hat / (np.sqrt(v_hat) + 1e-8)
    np.testing.assert_allclose(model.weight.item(), w, rtol=1e-4)


def test_each_step_is_as_long_as_its_own_rate():
    # Adam moves by the rate itself where the gradient is always 1.
    model, places = nn.Linear(1, 1, bias_attr=False), []

    def loss(model, x):
        places.append(model.weight.item())
        return model.weight.sum()

    fit(model, loss, np.zeros((1, 1), "float32"), steps=40, batch_size=1, lr=0.1)
    falling = 0.5 * (1 + np.cos(np.pi * np.arange(38) / 38))
    rates = 0.1 * np.array([0.5, 1.0, *falling])
    np.testing.assert_allclose(-np.diff([*places, model.weight.item()]), rates, atol=1e-5)


def test_training_is_accelerated_where_that_is_enabled(monkeypatch):
    within = []

    @contextlib.contextmanager
    def training():
        within.append("begun")
        yield
        within.append("ended")

    monkeypatch.setattr(accelerate, "training", training)

    def loss(model, x):
        within.append("step")
        return model(x).square().mean()

    fit(Small(), loss, IMAGES, steps=2, batch_size=16)
    assert within == ["begun", "step", "step", "ended"]


def test_training_leaves_paddle_as_it_was():
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", UNCHANGED], text=True)
    assert done.returncode == 0


UNCHANGED = """
import numpy as np
import paddle
from paddle import nn
from paddle.nn import functional as F

def functions():
    owners = [F, F.conv, nn.Conv2D, nn.Linear, nn.GroupNorm, nn.MaxPool2D, nn.Layer]
    return {(owner, name): vars(owner)[name] for owner in owners for name in vars(owner)}

before = functions()
from genbook.training import fit
fit(nn.Linear(2, 2), lambda model, x: model(x).square().mean(), np.ones((4, 2), "float32"),
    steps=2, batch_size=4)
assert functions() == before
"""


def test_images_and_labels_stay_together():
    images = np.arange(40, dtype="float32").reshape(40, 1)
    pairs = []

    def loss(model, x, label):
        pairs.extend(zip(x.numpy().ravel(), label.numpy(), strict=True))
        return model(x).square().mean()

    fit(nn.Linear(1, 1), loss, images, 3 * np.arange(40), steps=10, batch_size=8)
    assert len(set(pairs)) == 40
    assert all(label == 3 * image for image, label in pairs)


@pytest.mark.parametrize("data", [(), (IMAGES, np.zeros(59))])
def test_data_of_different_lengths_are_refused(data):
    with pytest.raises(ValueError, match="one length"):
        fit(Small(), noisy_loss, *data, steps=3, batch_size=16)


def test_history_has_an_entry_for_each_step_and_loss():
    _, history = trained()
    assert set(history) == {"loss", "twice", "seconds"}
    assert all(len(values) == 30 for values in history.values())
    np.testing.assert_allclose(history["twice"], 2 * history["loss"], rtol=1e-5)
    assert (np.diff(history["seconds"]) > 0).all()


def test_a_batch_holds_no_image_twice_until_all_were_seen():
    stream = batches(10, 3, seed=0)
    for _ in range(5):  # three batches of three, the tenth image is dropped
        epoch = np.concatenate([next(stream) for _ in range(3)])
        assert len(set(epoch)) == 9 and set(epoch) <= set(range(10))


def test_batches_differ_between_epochs_and_seeds():
    def first(n, seed):
        stream = batches(50, 10, seed)
        return [next(stream).tolist() for _ in range(n)]

    assert first(6, 0)[0] != first(6, 0)[5]
    assert first(1, 0) == first(1, 0) != first(1, 1)


def test_learning_rate_rises_in_a_line_and_falls_as_a_cosine():
    rates = [learning_rate(step, 200, 0.1) for step in range(200)]
    np.testing.assert_allclose(rates[:10], 0.1 * np.arange(1, 11) / 10)
    assert max(rates) == pytest.approx(0.1)
    np.testing.assert_allclose(rates[10 + 95], 0.05)  # half way down
    assert (np.diff(rates[10:]) <= 0).all() and 0 < rates[-1] < 1e-4


def test_moving_average_against_its_sum():
    model = nn.Linear(1, 1)
    average = loop.MovingAverage(model, decay=0.5)
    expected, values = 0.0, [3.0, -1.0, 4.0, 2.0, 7.0]
    model.weight.set_value(paddle.zeros([1, 1]))
    average.state["weight"].set_value(paddle.zeros([1, 1]))
    for n, value in enumerate(values, start=1):
        model.weight.set_value(paddle.full([1, 1], value))
        average.update(model)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
    np.testing.assert_allclose(average.state["weight"].item(), expected, rtol=1e-6)


def test_averaged_weights_lag_behind_and_include_the_buffers():
    plain, averaged = weights(trained(lr=1e-2)[0]), weights(trained(lr=1e-2, ema=0.9)[0])
    for name in plain:
        assert not np.array_equal(plain[name], averaged[name]), name


def test_the_model_is_left_ready_for_use():
    model, _ = trained()
    assert not model.training
    after_training = paddle.randn([3]).numpy()
    paddle.seed(0)
    np.testing.assert_array_equal(after_training, paddle.randn([3]).numpy())


@pytest.mark.parametrize(
    "settings, word",
    [
        ({"batch_size": 61}, "60 images"),
        ({"batch_size": 0}, "batch_size"),
        ({"steps": 0}, "steps"),
        ({"ema": 1.0}, "ema"),
        ({"ema": -0.1}, "ema"),
        ({"name": "a/b"}, "a/b"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_trained(settings, word):
    with pytest.raises(ValueError, match=word):
        trained(**settings)


@pytest.mark.parametrize(
    "bad",
    [
        lambda model, x: {"kl": model(x).mean()},
        lambda model, x: model(x),
        lambda model, x: {"loss": model(x).mean(), "kl": model(x)},
    ],
)
def test_a_loss_that_is_no_scalar_is_refused(bad):
    with pytest.raises(ValueError, match="scalar tensors"):
        fit(Small(), bad, IMAGES, steps=3, batch_size=16)


def test_a_loss_that_is_not_finite_stops_at_once():
    calls = []

    def loss(model, x):
        calls.append(1)
        return model(x).mean() * (float("nan") if len(calls) == 4 else 1.0)

    with pytest.raises(TrainingError, match="step 3"):
        fit(Small(), loss, IMAGES, steps=30, batch_size=16)
    assert len(calls) == 4


def test_nothing_of_the_progress_reaches_the_page(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("GENBOOK_PROGRESS", str(tmp_path / "progress.log"))
    trained(name="small")
    assert capfd.readouterr() == ("", "")
    assert "small: 100%" in (tmp_path / "progress.log").read_text()


def test_progress_is_shown_on_a_terminal(capfd, monkeypatch):
    monkeypatch.delenv("GENBOOK_PROGRESS", raising=False)
    trained(name="small")
    out, err = capfd.readouterr()
    assert out == "" and "small: 100%" in err


# Runs that are kept


@pytest.fixture
def counted(monkeypatch, tmp_path):
    """Keeps runs in tmp_path, and counts how often something is really trained."""
    monkeypatch.setenv("GENBOOK_RUNS", str(tmp_path / "runs"))
    trainings = []
    original = trainer.Run.train
    monkeypatch.setattr(trainer.Run, "train", lambda *args: trainings.append(1) or original(*args))
    return trainings


@pytest.mark.parametrize("ema", [None, 0.9])
def test_an_identical_run_is_loaded_and_equal_to_the_bit(counted, ema):
    (one, h1), (two, h2) = trained(ema=ema), trained(ema=ema)
    assert len(counted) == 1
    assert same(weights(one), weights(two)) and same(h1, h2)
    assert list(h1) == list(h2)
    assert not two.training


@pytest.mark.parametrize(
    "change", [{"steps": 31}, {"batch_size": 15}, {"lr": 2e-3}, {"ema": 0.9}, {"seed": 1}]
)
def test_another_run_is_trained(counted, change):
    trained()
    trained(**change)
    assert len(counted) == 2


def test_other_data_and_another_loss_are_trained_anew(counted):
    def run(images=IMAGES, factor=1.0):
        paddle.seed(0)
        loss = lambda model, x: factor * (model(x) - x).square().mean()  # noqa: E731
        fit(Small(), loss, images, steps=5, batch_size=16)

    run()
    run(images=IMAGES + 1e-3)
    run(factor=2.0)
    run()
    assert len(counted) == 3


def test_another_paddle_trains_anew(counted, monkeypatch):
    trained()
    monkeypatch.setattr(paddle, "__version__", "0.0")
    trained()
    assert len(counted) == 2


SIDE_BY_SIDE = """
import sys, time
import numpy as np
import paddle
from genbook.training import trainer

original = trainer.Run.train
def slow(*args):
    print("trained", flush=True)
    time.sleep(1)
    return original(*args)
trainer.Run.train = slow
paddle.seed(0)
loss = lambda model, x: model(x).square().mean()
trainer.fit(paddle.nn.Linear(2, 2), loss, np.ones((4, 2), "float32"), steps=2, batch_size=4)
"""


def test_two_processes_share_one_training(tmp_path):
    env = {**os.environ, "GENBOOK_RUNS": str(tmp_path)}
    log = tmp_path / "progress.log"
    env["GENBOOK_PROGRESS"] = str(log)
    both = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SIDE_BY_SIDE],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = "".join(process.communicate(timeout=1200)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert said.count("trained") == 1
    assert log.read_text().count("waiting: another process") == 1


def test_randomness_afterwards_is_the_same_whether_trained_or_loaded(counted):
    draws = []
    for _ in range(2):
        trained()
        draws.append(paddle.randn([4]).numpy())
    np.testing.assert_array_equal(*draws)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_damaged_file_is_trained_again(counted, tmp_path, keep):
    one, _ = trained()
    (file,) = (tmp_path / "runs").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:keep])
    two, _ = trained()
    assert len(counted) == 2 and same(weights(one), weights(two))


def test_an_interrupted_training_leaves_no_file(counted, tmp_path):
    def interrupted(model, x):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(Small(), interrupted, IMAGES, steps=3, batch_size=16)
    assert not list((tmp_path / "runs").glob("*.safetensors"))
