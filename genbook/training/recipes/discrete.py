"""Training the models of discrete codes: a VQ-VAE, and two priors of its tokens."""

import paddle

from genbook.data.augmentation import augment
from genbook.tokens import TokenNetwork, masked_bound, token_nll
from genbook.training import fit
from genbook.vqvae import VQVAE, vqvae_loss

from . import steps_for


def train_vqvae(data, size=64, restart=0.3, steps=None, seed=0):
    """A VQVAE with `size` vectors in its codebook; restart: see Codebook."""
    steps = steps_for(data, 500, steps)
    paddle.seed(seed)
    model = VQVAE(data.images.shape[1], size=size, restart=restart)
    history = fit(
        model, vqvae_loss, augment(data).images, steps=steps, lr=2e-3, seed=seed,
        name="VQ-VAE",
    )
    return model, history


def train_token_prior(data, vqvae, causal, steps=None, seed=0):
    """A TokenNetwork of the codes of `vqvae`: in order if causal, else masked."""
    steps = steps_for(data, 700, steps)
    more = augment(data)
    with paddle.no_grad():
        tokens = vqvae.tokens(paddle.to_tensor(more.images)).numpy()
    paddle.seed(seed)
    size, classes = len(vqvae.codebook.vectors), len(data.classes)
    sides = [side // 4 for side in data.images.shape[2:]]
    model = TokenNetwork(size, sides, classes, causal)

    def loss(model, tokens, labels):
        if causal:
            return token_nll(model, tokens, labels).sum(axis=1).mean()
        return masked_bound(model, tokens, labels).mean()

    history = fit(
        model, loss, tokens, more.labels, steps=steps, batch_size=64, lr=3e-3,
        ema=0.995, seed=seed, name="prior in order" if causal else "masked prior",
    )
    return model, history
