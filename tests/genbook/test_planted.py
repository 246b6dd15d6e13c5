"""The classic mistakes of generative models, planted one by one in a copy: each is noticed.

Of each mistake: what it is, the module, the right code, the wrong code, and a check that fails.
The same mistakes are the subject of the chapter "What goes wrong".
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


class Mistake(NamedTuple):
    """A mistake to plant: `right` stands once in the module and becomes `wrong`."""

    says: str
    module: str
    right: str
    wrong: str
    check: str


MISTAKES = [
    Mistake(
        "the KL divergence is a mean over the dimensions of the code",
        "vae",
        "(logvar.exp() + mu.square() - 1.0 - logvar).sum(axis=1)",
        "(logvar.exp() + mu.square() - 1.0 - logvar).mean(axis=1)",
        "tests/equations/test_divergence.py::test_kl_diagonal",
    ),
    Mistake(
        "the KL divergence is a mean over batch and dimensions",
        "vae",
        "kl = gaussian_kl(mu, logvar).mean()",
        "kl = gaussian_kl(mu, logvar).mean() / mu.shape[1]",
        "tests/genbook/test_vae.py::"
        "test_loss_is_reconstruction_plus_beta_kl_averaged_over_images[1.0]",
    ),
    Mistake(
        "the reconstruction is a mean over pixels, the KL divergence a sum",
        "vae",
        "return pixel_loss(x_hat, x).sum(axis=[1, 2, 3])",
        "return pixel_loss(x_hat, x).mean(axis=[1, 2, 3])",
        "tests/genbook/test_vae.py::test_reconstruction_loss_sums_pixels_for_each_image",
    ),
    Mistake(
        "the variance is passed as the log-variance",
        "vae",
        "kl = gaussian_kl(mu, logvar).mean()",
        "kl = gaussian_kl(mu, logvar.exp()).mean()",
        "tests/genbook/test_vae.py::"
        "test_loss_is_reconstruction_plus_beta_kl_averaged_over_images[1.0]",
    ),
    Mistake(
        "the log-variance is read as the logarithm of the standard deviation",
        "vae",
        "paddle.exp(0.5 * logvar) * eps",
        "paddle.exp(logvar) * eps",
        "tests/equations/test_vae.py::test_reparameterize",
    ),
    Mistake(
        "grey pixels are rounded, so that the cross-entropy is a likelihood",
        "vae",
        'F.binary_cross_entropy(x_hat, x, reduction="none")',
        'F.binary_cross_entropy(x_hat, x.round(), reduction="none")',
        "tests/equations/test_likelihood.py::test_grey_mass",
    ),
    Mistake(
        "the last step back adds noise",
        "diffusion",
        "return mean + noisy * paddle.exp(0.5 * log_variance) * noise",
        "return mean + paddle.exp(0.5 * log_variance) * noise",
        "tests/genbook/test_diffusion.py::test_p_sample_adds_no_noise_at_t_0",
    ),
    Mistake(
        "the variance of the last step back is not zero",
        "diffusion",
        "rest_prev = 1.0 - self.alphas_cumprod_prev",
        "rest_prev = 1.0 - np.append(alphas[0], self.alphas_cumprod_prev[1:])",
        "tests/genbook/test_diffusion.py::test_posterior_of_the_first_step_is_the_image_itself",
    ),
    Mistake(
        "the logarithm of the variance has no floor",
        "diffusion",
        "np.maximum(np.append(floor, self.posterior_variance[1:]), 1e-20)",
        "np.maximum(self.posterior_variance, 1e-20)",
        "tests/genbook/test_diffusion.py::test_posterior_of_the_first_step_is_the_image_itself",
    ),
    Mistake(
        "the betas of the cosine are not clipped",
        "diffusion",
        "return np.minimum(1 - f[1:] / f[:-1], MAX_BETA)",
        "return 1 - f[1:] / f[:-1]",
        "tests/genbook/test_diffusion.py::test_cosine_schedule_follows_its_formula_until_the_clip",
    ),
    Mistake(
        "alphas_cumprod is from before the clip",
        "diffusion",
        "self.alphas_cumprod = np.cumprod(alphas)",
        "self.alphas_cumprod = np.cumprod(np.where(betas < MAX_BETA, alphas, 1e-12))",
        "tests/genbook/test_diffusion.py::test_arrays_are_float64_and_belong_together",
    ),
    Mistake(
        "the linear betas are those for 1,000 steps, whatever T is",
        "diffusion",
        "scale = 1000 / timesteps",
        "scale = 1",
        "tests/genbook/test_diffusion.py::"
        "test_schedules_leave_hardly_any_image_at_the_end[linear_beta_schedule-100]",
    ),
    Mistake(
        "DDIM clips the image and keeps the noise from before",
        "diffusion",
        "eps = self.predict_noise_from_start(x_t, t, x_start)",
        "eps = model(x_t, t)",
        "tests/genbook/test_diffusion.py::test_ddim_rederives_the_noise_from_the_clipped_image",
    ),
    Mistake(
        "DDIM in strides uses alpha-bar of one step before",
        "diffusion",
        "alpha_bar_prev = from_clean[t_prev.numpy() + 1]",
        "alpha_bar_prev = from_clean[t.numpy()]",
        "tests/genbook/test_diffusion.py::test_ddim_jumps_along_the_exact_path",
    ),
    Mistake(
        "training never draws the last step",
        "diffusion",
        "paddle.randint(0, self.timesteps, [x_start.shape[0]])",
        "paddle.randint(0, self.timesteps - 1, [x_start.shape[0]])",
        "tests/genbook/test_diffusion.py::"
        "test_training_draws_every_step_from_the_first_to_the_last",
    ),
    Mistake(
        "the steps of DDIM are counted from zero and never start at the last",
        "diffusion",
        "np.linspace(self.timesteps - 1, 0, steps).round().astype(np.int64)",
        "(np.arange(steps) * (self.timesteps // steps))[::-1]",
        "tests/genbook/test_diffusion.py::"
        "test_ddim_timesteps_run_from_the_last_to_the_first[linear_beta_schedule-7]",
    ),
    Mistake(
        "the average's step counter is not in the checkpoint",
        "train",
        "self.average.updates = updates",
        "pass",
        "tests/genbook/test_checkpoint.py::"
        "test_a_training_stopped_anywhere_ends_with_the_same_bits[0.9]",
    ),
    Mistake(
        "the average leaves out the buffers of batch normalisation",
        "train",
        "k: v for k, v in model.state_dict().items() if v.dtype == paddle.float32",
        "k: v for k, v in model.named_parameters() if not v.stop_gradient",
        "tests/genbook/test_train.py::test_averaged_weights_lag_behind_and_include_the_buffers",
    ),
    Mistake(
        "log-mean-exp runs over the images and not over the codes",
        "metrics",
        "logsumexp(log_weights, axis=0) - math.log(len(log_weights))",
        "logsumexp(log_weights, axis=1) - math.log(len(log_weights))",
        "tests/genbook/test_metrics.py::"
        "test_the_importance_weighted_bound_against_quadrature_over_two_codes",
    ),
    Mistake(
        "all ranks draw the same noise",
        "train",
        "np.random.SeedSequence([seed, step, rank])",
        "np.random.SeedSequence([seed, step])",
        "tests/genbook/test_parallel.py::test_each_seed_step_and_rank_has_noise_of_its_own",
    ),
    Mistake(
        "all ranks see the same part of the batch",
        "ranks",
        "return index[rank() :: count()]",
        "return index[0 :: count()]",
        "tests/genbook/test_parallel.py::test_the_ranks_share_each_batch_among_them",
    ),
]


def possible(mistake):
    """Whether the check of this mistake can run here."""
    return devices()[0] >= 2 or mistake.module != "ranks"


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    """For each mistake, the checks that failed on its copy."""
    jobs = []
    for mistake in filter(possible, MISTAKES):
        folder = tmp_path_factory.mktemp("planted")
        shutil.copytree(
            ROOT / "genbook", folder / "genbook", ignore=shutil.ignore_patterns("__pycache__")
        )
        module = folder / "genbook" / f"{mistake.module}.py"
        source = module.read_text("utf-8")
        assert source.count(mistake.right) == 1, f"{mistake.module}: {mistake.right}"
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
