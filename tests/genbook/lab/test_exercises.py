"""The checks of the exercises: right answers pass, mistakes are called by their names."""

import numpy as np
import paddle
import pytest
from scipy import special

from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule, guided
from genbook.lab.checks import exercises

IMAGES = np.random.default_rng(1).uniform(-1, 1, (12, 1, 4, 4)).astype("float32")


def lme(x):
    return special.logsumexp(x, axis=-1) - np.log(x.shape[-1])


def polar(u, v):
    r, a = np.sqrt(-2 * np.log(u)), 2 * np.pi * v
    return r * np.cos(a), r * np.sin(a)


def betas_of(levels, k=1.0, first=1.0):
    bar = 1 / (1 + np.exp(-k * levels))
    return 1 - bar / np.append(first, bar[:-1])


def best(diffusion, kind=None, images=IMAGES, weights=None, factor=0.5):
    """The best model, of which some parts can be wrong."""

    def model(x_t, t):
        a = float(diffusion.alphas_cumprod[int(t[0])])
        x, flat = x_t.numpy().reshape(len(x_t), -1), images.reshape(len(images), -1)
        far = ((x[:, None] - np.sqrt(a) * flat) ** 2).sum(2)
        q = special.softmax(-factor * far / (1 - a), axis=1) if weights is None else weights(far)
        mean = q @ flat
        noise = (x - np.sqrt(a) * mean) / np.sqrt(1 - a)
        v = np.sqrt(a) * noise - np.sqrt(1 - a) * mean
        answer = {"v": v, "eps": noise, "x_0": mean}[kind or diffusion.prediction]
        return paddle.to_tensor(answer.reshape(x_t.shape), dtype="float32")

    return model


def in_between(network, labels, scale, process, low=0.1, high=0.9, outside=True, root=1):
    def model(x_t, t):
        if low < process.alphas_cumprod[int(t[0])] ** root < high:
            return guided(network, labels, scale)(x_t, t)
        return network(x_t, t, labels) if outside else network(x_t, t)

    return model


def deviation(process, last=300):
    start, noise = paddle.full([4, 1, 2, 2], 0.4), paddle.randn([4, 1, 2, 2])
    now, then = (paddle.full([4], step, dtype="int64") for step in (700, last))
    x_t = process.q_sample(start, now, noise)
    x_s = process.ddim_sample(lambda x_t, t: process.target(start, t, noise), x_t, now, then)
    return (x_s - process.q_sample(start, then, noise)).abs().max()


def ring(vectors):
    ranks, sent = len(vectors), 0
    pieces = [np.array_split(v, ranks) for v in vectors]
    for k in range(ranks):  # each piece goes round once to be added, once to be told
        total = sum(rank[k] for rank in pieces)
        for rank in pieces:
            rank[k] = total
        sent += 2 * (ranks - 1) * len(total) / ranks
    return [np.concatenate(p) for p in pieces], sent


V, EPS = (GaussianDiffusion(cosine_beta_schedule(1000), kind) for kind in ("v", "eps"))
RIGHT = [
    (exercises.exercise_log_mean_exp, lme),
    (exercises.exercise_log_mean_exp, lambda x: np.logaddexp.reduce(x, axis=-1) - np.log(x.shape[-1])),
    (exercises.exercise_box_muller, polar),
    (exercises.exercise_box_muller, lambda u, v: np.array(polar(u, v))[::-1]),
    (exercises.exercise_betas_of, betas_of),
    (exercises.exercise_best_model, best(V)),
    (exercises.exercise_guided_in_between, in_between),
    (exercises.exercise_finds_one_step, deviation),
    (exercises.exercise_ring_all_reduce, ring),
]  # fmt: skip
NEAREST = lambda far: np.eye(len(IMAGES))[far.argmin(1)]
PLAIN = lambda far: np.full(far.shape, 1 / len(IMAGES))
WRONG = [
    (exercises.exercise_log_mean_exp, [
        (lambda x: special.logsumexp(x, axis=-1), "the mean has log K less"),
        (lambda x: x.mean(-1), "with the logarithm inside the mean"),
        (lambda x: np.exp(x).mean(-1), "the logarithm is missing"),
        (lambda x: lme(x.reshape(-1)), "over all entries"),
        (lambda x: lme(x.T), "over the first axis"),
        (lambda x: lme(x)[:, None], "kept with one entry"),
        (lambda x: np.log(np.exp(x).mean(-1)), "near 1,000 it gives inf"),
        (lambda x: lme(x - x.max(-1, keepdims=True)) + lme(x) * (x.max() < 9), "it is"),
        (lambda x: None, "returns nothing"),
        (lambda: 1, "it stops with TypeError"),
    ]),
    (exercises.exercise_box_muller, [
        (lambda u, v: polar(u, v)[0], "must return two things"),
        (lambda u, v: np.sqrt(0.5) * np.array(polar(u, v)), "the factor 2 in front"),
        (lambda u, v: np.sqrt(-2 * np.log(u)) * np.array(polar(u, v)), "the root is missing"),
        (lambda u, v: polar(u, v / (2 * np.pi)), "once around, 2 pi u_2"),
        (lambda u, v: polar(u, v / 2), "goes half around"),
        (lambda u, v: polar(v, u), "are exchanged"),
    ]),
    (exercises.exercise_betas_of, [
        (lambda levels: betas_of(-levels), "the sign is wrong"),
        (lambda levels: betas_of(levels, 2), "the ratio was squared"),
        (lambda levels: betas_of(levels)[1:], "the first step is missing"),
        (lambda levels: 1 - betas_of(levels), "these are the alphas"),
        (lambda levels: special.expit(levels), "these are alpha_bar;"),
        (lambda levels: special.expit(-levels), "the noise of all steps together"),
        (lambda levels: 1 - 1 / (1 - betas_of(levels)), "upside down"),
        (lambda levels: betas_of(levels, first=0.5), "beta is"),
    ]),
    (exercises.exercise_best_model, [
        (best(V, "x_0"), "this is x_0; the diffusion asks for v"),
        (best(V, "eps"), "this is eps; the diffusion asks for v"),
        (best(V, weights=NEAREST), "this belongs to the nearest image"),
        (best(V, weights=PLAIN), "this belongs to the plain mean"),
        (best(V, weights=lambda far: special.softmax(-far / 2, axis=1)),
         "the variance 1 - alpha_bar is missing in the exponent"),
        (best(V, factor=1), "the factor 1/2 is missing"),
        (best(V, images=(IMAGES + 1) / 2), "the images are in [0, 1]"),
    ]),
    (exercises.exercise_guided_in_between, [
        (lambda *a: in_between(*a, low=-1, high=2), "it guides at all steps"),
        (lambda *a: in_between(*a, low=2), "it guides at no step"),
        (lambda *a: in_between(*a, outside=False), "here it is ignored"),
        (lambda n, y, w, p: in_between(n, y, w - 1, p), "the scale is used as the g"),
        (lambda *a: in_between(*a, high=2), "also guides where alpha_bar is above 0.9"),
        (lambda *a: in_between(*a, low=-1), "also guides where alpha_bar is below 0.1"),
        (lambda *a: in_between(*a, root=0.5), "that of its root"),
        (lambda n, y, w, p: lambda x, t: in_between(n, y, w, p, 0.1 < p.alphas_cumprod[int(t[0])] < 0.9
                                                    and 2 or -1, 2)(x, t), "outside of the interval"),
    ]),
    (exercises.exercise_finds_one_step, [
        (lambda process: 1.0, "it gives 1 for a right process"),
        (lambda process: np.zeros(3), "a number is expected"),
        (lambda process: 0.0, "as if it were right"),
        (lambda process: deviation(process, last=699), "with a step of more than one"),
    ]),
    (exercises.exercise_ring_all_reduce, [
        (lambda vs: ring(vs)[0], "a number is expected"),
        (lambda vs: ring(vs)[1], "must return two things"),
        (lambda vs: ([v[i:] for i, v in enumerate(vs)], 0), "the vectors differ in length"),
        (lambda vs: (vs, 0), "the vectors are as they were"),
        (lambda vs: ([v / len(vs) for v in ring(vs)[0]], 0), "this is the mean"),
        (lambda vs: (ring(vs)[0][:1], 0), "only one rank has the sum"),
        (lambda vs: (ring(vs)[0], (len(vs) - 1) * vs[0].size), "sends 36 numbers, whole vectors"),
        (lambda vs: (ring(vs)[0], 0), "each sends 0, expected about 8"),
    ]),
]  # fmt: skip


def printed(capsys, exercise, answer):
    exercise(answer, *([V, IMAGES] if exercise is exercises.exercise_best_model else []))
    return capsys.readouterr().out


@pytest.mark.parametrize("exercise, answer", RIGHT, ids=lambda x: x.__name__)
def test_a_right_answer(capsys, exercise, answer):
    assert printed(capsys, exercise, answer) == f"{answer.__name__}: right\n"


def test_the_best_model_for_either_prediction(capsys):
    exercises.exercise_best_model(best(EPS), EPS, IMAGES)
    exercises.exercise_best_model(best(EPS, "v"), EPS, IMAGES)
    right, wrong = capsys.readouterr().out.splitlines()
    assert right == "model: right" and "this is v; the diffusion asks for eps" in wrong


@pytest.mark.parametrize("exercise, mistakes", WRONG, ids=lambda x: getattr(x, "__name__", ""))
def test_mistakes(capsys, exercise, mistakes):
    for answer, says in mistakes:
        assert says in printed(capsys, exercise, answer)


def test_every_exercise_is_tried_here():
    names = {name for name in vars(exercises) if name.startswith("exercise_")}
    assert names == {e.__name__ for e, _ in RIGHT} == {e.__name__ for e, _ in WRONG}
