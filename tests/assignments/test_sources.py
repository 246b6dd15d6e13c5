"""Code taken from the package as text."""

import ast
import inspect

import numpy as np
import paddle
import pytest

from genbook import autoencoder, diffusion, vae
from genbook.lab.assignments import sources


def run(text):
    namespace = {"__name__": "alone"}
    exec(compile(text, "alone", "exec"), namespace)
    return namespace


def test_what_is_taken_brings_all_that_it_uses_and_nothing_of_the_package():
    text = sources.standalone(
        "genbook.lab.checks.diffusion.check_p_sample", "genbook.data.digits.read_digits"
    )
    assert "import genbook" not in text and "from genbook" not in text
    names = run(text)
    names["check_p_sample"](diffusion.GaussianDiffusion)
    images, labels = names["read_digits"]("test", 16, None)
    assert images.shape == (360, 16, 16) and len(labels) == 360
    assert "check_q_sample" not in names


def test_what_two_share_stands_once():
    text = sources.standalone(
        "genbook.lab.checks.vae.check_gaussian_kl", "genbook.lab.checks.vae.check_reparameterize"
    )
    names = [node.name for node in ast.parse(text).body if hasattr(node, "name")]
    assert len(names) == len(set(names)) and {"Wrong", "check_gaussian_kl"} <= set(names)
    run(text)["check_gaussian_kl"](vae.gaussian_kl)


def test_a_function_can_be_left_to_somebody_else():
    text = sources.standalone("genbook.vae.VAE", without=["genbook.vae.reparameterize"])
    names = run(text)
    assert "reparameterize" not in names
    names["reparameterize"] = vae.reparameterize
    assert names["VAE"]()(paddle.rand([2, 1, 16, 16]))[0].shape == [2, 1, 16, 16]


def test_a_method_can_be_left_out_with_its_comment():
    name = "genbook.diffusion.GaussianDiffusion"
    text = sources.standalone(name, without=[f"{name}.q_sample", f"{name}.ddim_sample"])
    taken = run(text)["GaussianDiffusion"]
    gone = {m for m in vars(diffusion.GaussianDiffusion) if m not in vars(taken)}
    assert gone == {"q_sample", "ddim_sample"}
    assert "Fewer steps" not in text and "# Training" in text
    betas = np.linspace(0.1, 0.2, 5)
    np.testing.assert_array_equal(
        taken(betas).posterior_variance, diffusion.GaussianDiffusion(betas).posterior_variance
    )


@pytest.mark.parametrize("name", ["genbook.vae.nothing", "genbook.nothing.VAE"])
def test_a_name_that_does_not_exist(name):
    with pytest.raises(Exception, match="nothing"):
        sources.standalone(name)


def test_a_body_is_blanked_after_its_docstring():
    text = sources.blank_body(sources.definition("genbook.diffusion.GaussianDiffusion.p_sample"))
    lines = text.splitlines()
    first, last = (lines.index(f"    {mark}") for mark in (sources.BEGIN, sources.END))
    assert lines[first - 1].endswith('its mean."""') and last == len(lines) - 1
    assert lines[0].startswith("def p_sample(self, model")


def test_arguments_are_blanked_and_leave_a_call():
    text = sources.blank_arguments(
        sources.definition("genbook.autoencoder.AutoEncoder"), "self.encoder"
    )
    before, rest = text.split(sources.BEGIN)
    solution, after = rest.split(sources.END)
    assert before.rstrip().endswith("self.encoder = nn.Sequential(") and after.strip()[0] == ")"
    assert solution.count("nn.") == 8
    stub = before + after
    ast.parse(stub)
    without_marks = [line for line in text.splitlines() if "SOLUTION" not in line]
    assert "\n".join(without_marks) in inspect.getsource(autoencoder)
    with pytest.raises(ValueError, match="self.nothing is assigned 0 times"):
        sources.blank_arguments(text, "self.nothing")
