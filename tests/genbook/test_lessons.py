"""A lesson copied alone into an empty folder runs."""

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import genbook

PACKAGE = Path(genbook.__file__).parent
ALLOWED = {"paddle", "numpy", "math"}  # math is Python's own

USES = {
    "autoencoder": "print(AutoEncoder()(paddle.rand([2, 3, 28, 28])).shape)",
    "vae": "print(vae_loss(VAE(), paddle.rand([2, 1, 16, 16]))['loss'].item() > 0)",
    "diffusion": """
d = GaussianDiffusion(cosine_beta_schedule(10), "v")
print(d.p_sample_loop(lambda x, t: x, [2, 1, 4, 4]).shape)
""",
    "solvers": "print(heun(lambda x, s: x / 2, paddle.ones([1]), [2.0, 1.0, 0.0]).item())",
    "flow": "print(euler(lambda x, tau: x, paddle.ones([1]), [1.0, 0.5, 0.0]).item())",
    "unet": "print(UNet()(paddle.randn([2, 1, 16, 16]), paddle.to_tensor([0, 5])).shape)",
    "transformer": "print(DiT()(paddle.randn([2, 1, 8, 8]), paddle.to_tensor([0, 5])).shape)",
    "inverse": "print(energy_score(np.zeros([1, 2, 3]), np.ones([1, 3])))",
    "vqvae": "print(vqvae_loss(VQVAE(), paddle.rand([2, 1, 16, 16]))['loss'].item() > 0)",
    "tokens": """
model = TokenNetwork(5, (2, 2), 3, causal=False)
print(sample_by_unmasking(model, paddle.to_tensor([0, 2]), 3).shape)
""",
    "latent": "print(CodeDenoiser(4)(paddle.randn([2, 4]), paddle.to_tensor([0, 5])).shape)",
    "distillation": """
class Process:
    timesteps, alphas_cumprod = 2, np.array([0.5, 0.1])


v, x, t = lambda x, t: 0 * x, paddle.ones([1, 2]), paddle.to_tensor([0])
print(target_loss(Process, v, x, t, x).item())
""",
}


@pytest.mark.parametrize("name", USES)
def test_a_lesson_imports_only_paddle_and_numpy(name):
    imported = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{name}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0] if not node.level else "genbook")
    assert imported <= ALLOWED


@pytest.mark.parametrize("name", USES)
def test_a_lesson_runs_alone(name, tmp_path):
    shutil.copy(PACKAGE / f"{name}.py", tmp_path)
    # Paddle and NumPy by path: the installed genbook is not to be found this way.
    code = (
        f"import sys; sys.modules['genbook'] = None\nimport paddle\n"
        f"from {name} import *\n{USES[name]}"
    )
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip()
