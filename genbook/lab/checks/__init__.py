"""Check an answer to a task of the lab: each check says in words what is wrong.

    from genbook.lab.checks import task2
    task2(reparameterize, gaussian_kl)

The checks themselves are plain functions that raise `Wrong`; the assignments carry them.
"""

from .autoencoder import check_decoder, check_encoder
from .compare import Wrong, report
from .diffusion import check_p_sample, check_q_posterior_mean_variance, check_q_sample
from .vae import check_gaussian_kl, check_reparameterize

__all__ = ["Wrong", "task1", "task2", "task3"]


def task1(AutoEncoder):
    """Print what is wrong with the encoder and the decoder of the class AutoEncoder."""
    report("encoder", check_encoder, AutoEncoder)
    report("decoder", check_decoder, AutoEncoder)


def task2(reparameterize, gaussian_kl):
    """Print what is wrong with the two functions of the VAE."""
    report("reparameterize", check_reparameterize, reparameterize)
    report("gaussian_kl", check_gaussian_kl, gaussian_kl)


def task3(GaussianDiffusion):
    """Print what is wrong with the three methods of the class GaussianDiffusion."""
    report("q_sample", check_q_sample, GaussianDiffusion)
    report("q_posterior_mean_variance", check_q_posterior_mean_variance, GaussianDiffusion)
    report("p_sample", check_p_sample, GaussianDiffusion)
