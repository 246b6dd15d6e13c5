"""The classic mistakes, planted in what is handed in: what the exported grades say of them.

All in one notebook, of the lab's own cells less those that train: the answers in code, their tests,
and what both need. A student with mistakes answers half of the questions rightly.
"""

import csv
import json
import re

import pytest

pytest.importorskip("nbgrader", reason="needs nbgrader: pip install '.[grading]'")

from genbook.lab.assignments.build import TASKS, course, run, write_notebook
from genbook.lab.assignments.grade import grade

# The questions, by task, and the cells that answer them.
QUESTIONS = {
    "encoder": "network", "decoder": "network",
    "reparameterize-test": "reparameterize", "gaussian-kl-test": "gaussian-kl",
    "q_sample-test": "q_sample",
    "q_posterior_mean_variance-test": "q_posterior_mean_variance",
    "p_sample-test": "p_sample",
}  # fmt: skip
GIVEN = {"setup", "process"}

POOL = "nn.MaxPool2D(2, 2),  # [N, 32, H/4, W/4]"
SAMPLE = "mu + paddle.exp(0.5 * logvar) * eps"
KL = "0.5 * (logvar.exp() + mu.square() - 1.0 - logvar).sum(axis=1)"
NOISED = "signal * x_start + self._noise_scale(t, x_start.ndim) * noise"
VARIANCE = "extract(self.posterior_variance, t, x_t.ndim)"
LOG_VARIANCE = "extract(self.posterior_log_variance_clipped, t, x_t.ndim)"
STEP = "mean + noisy * paddle.exp(0.5 * log_variance) * noise"

# (question, what the solution says, what the student says, the points of four, what the grader says)
MISTAKES = [
    ("encoder", POOL, "", 2, "14x14, expected 7x7: is the second pooling missing?"),
    ("encoder", "Conv2D(16, 32, 3, stride=1, padding=1)", "Conv2D(16, 32, 3)",
     2, "is padding=1 missing?"),
    ("encoder", "nn.Conv2D(in_channels, 16, 3,", "nn.Conv2D(3, 16, 3,",
     4, "is a 3 written where in_channels belongs?"),
    ("encoder", "nn.BatchNorm2D(32)", "nn.BatchNorm2D(16)", 0, "the encoder stops with ValueError"),
    ("decoder", "nn.Sigmoid()", "nn.Tanh()", 3, "take the sigmoid at its end, not Tanh"),
    ("decoder", "nn.Sigmoid(),", "", 3, "its sigmoid is missing"),
    ("decoder", "nn.Conv2DTranspose(32, 16, 2, stride=2)",
     "nn.Conv2DTranspose(32, 16, 3, stride=2)", 2, "a kernel of 3 does not"),
    ("reparameterize-test", SAMPLE, "mu + logvar * eps", 2, "sigma was taken for log-variance"),
    ("reparameterize-test", SAMPLE, "mu + paddle.exp(logvar) * eps",
     2, "the variance stands where sigma belongs"),
    ("reparameterize-test", "randn(mu.shape", "randn([1, mu.shape[1]]",
     2, "every row of the batch gets the same noise"),
    ("reparameterize-test", "paddle.randn(", "paddle.rand(", 2, "the noise is uniform"),
    ("reparameterize-test", SAMPLE, f"({SAMPLE}).detach()", 1, "no gradient reaches mu"),
    ("gaussian-kl-test", KL, f"{KL}.mean()",
     3, "this KL is averaged over the batch; the lab asks for the sum over dimensions"),
    ("gaussian-kl-test", "sum(axis=1)", "mean(axis=1)", 2, "averaged over the dimensions"),
    ("gaussian-kl-test", "0.5 * (", "(", 3, "the factor 1/2 is missing"),
    ("gaussian-kl-test", "return 0.5", "return -0.5", 2, "the sign is wrong"),
    ("gaussian-kl-test", "logvar.exp()", "paddle.exp(0.5 * logvar)",
     2, "sigma stands where sigma^2 belongs"),
    ("q_sample-test", NOISED, NOISED.replace("x_start +", "x_start -"), 3, "the noise is subtracted"),
    ("q_sample-test", "self.sqrt_alphas_cumprod", "self.alphas_cumprod",
     3, "the root of alpha_bar is missing"),
    ("q_sample-test", NOISED, "signal * x_start + (1 - signal) * noise",
     2, "it must be sqrt(1 - alpha_bar)"),
    ("q_posterior_mean_variance-test", VARIANCE, "extract(self.betas, t, x_t.ndim)",
     3, "the variance is beta_t, that of a step forward"),
    ("q_posterior_mean_variance-test", LOG_VARIANCE, "variance.log()",
     3, "the log variance at t = 0 is infinite"),
    ("q_posterior_mean_variance-test", "return mean, variance, log_variance",
     "return mean, variance", 3, "must return three things"),
    ("p_sample-test", STEP, STEP.replace("noisy * ", ""),
     2, "noise was added at t = 0: the last step gives the mean"),
    ("p_sample-test", STEP, STEP.replace("0.5 * ", ""), 2, "the variance stands where sigma belongs"),
    ("p_sample-test", STEP, "mean", 1, "no noise was added: only the last step"),
]  # fmt: skip

OTHER = {
    "network": '''
class AutoEncoder(nn.Layer):
    def __init__(self, in_channels=3):
        super().__init__()

        def half(before, after):
            return [nn.BatchNorm2D(before), nn.Conv2D(before, after, 4, 2, 1), nn.LeakyReLU()]

        def double(before, after):
            return [nn.Upsample(scale_factor=2), nn.Conv2D(before, after, 3, padding=1)]

        self.decoder = nn.Sequential(
            *double(32, 16), nn.GELU(), nn.BatchNorm2D(16), *double(16, in_channels), nn.Sigmoid())
        self.encoder = nn.Sequential(*half(in_channels, 16), *half(16, 32))
''',
    "reparameterize": '''
def reparameterize(centre, log_var, draw=None):
    draw = paddle.standard_normal(centre.shape) if draw is None else draw
    return paddle.einsum("nj,nj->nj", draw, (log_var / 2).exp()) + centre
''',
    "gaussian-kl": '''
def gaussian_kl(centre, log_var):
    total = -0.5 * centre.shape[1] * paddle.ones([centre.shape[0]])
    for m, s in zip(centre.unbind(1), log_var.unbind(1)):
        total = total + (m * m - s + s.exp()) / 2
    return total
''',
    "q_sample": '''
def noised(process, clean, steps, eps=None):
    eps = paddle.standard_normal(clean.shape) if eps is None else eps
    kept = paddle.to_tensor(process.alphas_cumprod, dtype="float32")[steps]
    return (paddle.einsum("n,nchw->nchw", kept.sqrt(), clean)
            + paddle.einsum("n,nchw->nchw", (1 - kept).sqrt(), eps))


q_sample = noised
''',
    "q_posterior_mean_variance": '''
def q_posterior_mean_variance(self, clean, noisy, steps):
    # By way of the precisions of the step forward and of the state before it.
    beta, before = (paddle.to_tensor(a, dtype="float64")[steps].reshape([-1, 1, 1, 1])
                    for a in (self.betas, self.alphas_cumprod_prev))
    wide = (1 - before).clip(min=1e-12)
    variance = 1 / (1 / wide + (1 - beta) / beta)
    mean = variance * (before.sqrt() / wide * clean.astype("float64")
                       + (1 - beta).sqrt() / beta * noisy.astype("float64"))
    variance = paddle.where(before < 1, variance, paddle.zeros_like(variance))
    logs = variance.clip(min=1e-12).log()
    return [x.astype("float32") for x in (mean, variance, logs)]
''',
    "p_sample": '''
p_sample = lambda self, net, x, steps, eps=None: paddle.stack([
    m if s == 0 else m + v**0.5 * e
    for m, v, s, e in zip(*self.p_mean_variance(net, x, steps)[:2], steps.tolist(),
                          paddle.standard_normal(x.shape) if eps is None else eps)])
''',
}  # fmt: skip


# The mistakes of each student, by the question. Every seventh mistake is far enough away: nobody
# has two at one question, or one at a question whose answer is needed for the next.
STUDENTS = [{mistake[0]: mistake for mistake in MISTAKES[i::7]} for i in range(7)]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """The rows of grades.csv by student: the numbers of STUDENTS, and "other"."""
    folder = tmp_path_factory.mktemp("mistakes")
    out, handed_in = folder / "out", folder / "in"
    handed_in.mkdir()
    wanted = GIVEN | set(QUESTIONS) | set(QUESTIONS.values())
    cells = [cell for task in TASKS.values() for cell in task.cells((1, 2, 3))]
    cells = {cell["id"]: cell for cell in cells if cell["id"] in wanted}
    assert set(cells) == wanted
    write_notebook(out / "source/lab/lab.ipynb", list(cells.values()))
    with course(out) as api:
        run(api.generate_assignment, "lab")
    notebook = json.loads((out / "release/lab/lab.ipynb").read_text(encoding="utf-8"))

    def hand_in(student, answers):
        for cell in notebook["cells"]:
            cell["source"] = answers.get(cell["id"], cell["source"])
        (handed_in / f"{student}_lab.ipynb").write_text(json.dumps(notebook), encoding="utf-8")

    for student, mistakes in enumerate(STUDENTS):
        answers = {cell: cells[cell]["source"] for cell in QUESTIONS.values()}
        for question, right, wrong, *_ in mistakes.values():
            cell = QUESTIONS[question]
            assert answers[cell].count(right) == 1, right
            answers[cell] = answers[cell].replace(right, wrong)
        hand_in(student, answers)
    hand_in("other", OTHER)
    path = grade(handed_in, out, report=lambda line: None)
    with open(path, newline="", encoding="utf-8") as file:
        return {row["student"]: row for row in csv.DictReader(file)}


def test_there_are_more_than_twenty_mistakes():
    assert sum(map(len, STUDENTS)) == len(MISTAKES) > 20


@pytest.mark.parametrize("student", range(len(STUDENTS)))
def test_a_mistake_costs_a_part_of_its_own_points_and_is_called_by_its_name(rows, student):
    row, mistakes = rows[str(student)], STUDENTS[student]
    assert {q: row[q] for q in QUESTIONS} == {
        q: f"{mistakes[q][3] if q in mistakes else 4:.1f}" for q in QUESTIONS
    }
    _, *parts = re.split(rf"(?:^|; )({'|'.join(QUESTIONS)}): ", row["reason"])
    said = dict(zip(parts[::2], parts[1::2], strict=True))
    assert set(said) == set(mistakes)
    for question, (*_, says) in mistakes.items():
        assert says in said[question]


def test_another_right_solution_gets_full_marks(rows):
    row = rows["other"]
    assert row["reason"] == ""
    assert float(row["score"]) == float(row["max_score"]) == 4 * len(QUESTIONS)
