"""Classic mistakes of training, planted one by one in a copy of the package: each is noticed.

Of each mistake: what it is, the right code, the wrong code, and a check that fails.
Those of the lessons (the KL divergence, the schedules, the samplers) and of the metrics are left to
`make mutants`, which changes every line of them; here are those of modules that it does not change,
because their tests train.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from genbook.training.launch import devices

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow  # a test of tests, as `make mutants` is


class Mistake(NamedTuple):
    """A mistake to plant: `right` stands once in the package and becomes `wrong`."""

    says: str
    right: str
    wrong: str
    check: str


MISTAKES = [
    Mistake(
        "the average's step counter is not in the checkpoint",
        "average.updates = updates",
        "average.updates = 0",
        "tests/genbook/training/test_checkpoint.py::"
        "test_a_training_stopped_anywhere_ends_with_the_same_bits[0.9]",
    ),
    Mistake(
        "the average leaves out the buffers of batch normalisation",
        "k: v for k, v in model.state_dict().items() if v.dtype == paddle.float32",
        "k: v for k, v in model.named_parameters() if not v.stop_gradient",
        "tests/genbook/training/test_loop.py::test_averaged_weights_lag_behind_and_include_the_buffers",
    ),
    Mistake(
        "all ranks draw the same noise",
        "np.random.SeedSequence([seed, step, rank])",
        "np.random.SeedSequence([seed, step])",
        "tests/genbook/training/test_launch.py::test_each_seed_step_and_rank_has_noise_of_its_own",
    ),
    Mistake(
        "all ranks see the same part of the batch",
        "return index[rank() :: count()]",
        "return index[0 :: count()]",
        "tests/genbook/training/test_launch.py::test_the_ranks_share_each_batch_among_them",
    ),
]


def possible(mistake):
    """Whether the check of this mistake can run here."""
    return devices()[0] >= 2 or "rank()" not in mistake.right


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """For each mistake, the checks that failed on its copy."""
    jobs = []
    for mistake in filter(possible, MISTAKES):
        folder = tmp_path_factory.mktemp("planted")
        shutil.copytree(
            ROOT / "genbook", folder / "genbook", ignore=shutil.ignore_patterns("__pycache__")
        )
        found = {path: path.read_text("utf-8") for path in folder.rglob("*.py")}
        [(module, source)] = [(p, text) for p, text in found.items() if mistake.right in text]
        assert source.count(mistake.right) == 1, mistake.right
        module.write_text(source.replace(mistake.right, mistake.wrong), "utf-8")
        jobs.append({"folder": str(folder), "checks": [mistake.check]})
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("planted.py"), json.dumps(jobs)],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    return dict(zip(filter(possible, MISTAKES), found, strict=True))


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.says)
def test_a_classic_mistake_is_noticed(mistake, failed):
    if not possible(mistake):
        pytest.skip("needs two cores")
    assert failed[mistake], f"{mistake.check} passes although {mistake.says}"
