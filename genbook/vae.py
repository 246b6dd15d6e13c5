"""The variational autoencoder: encoder, decoder, and the losses that train them.

Every loss here is summed over the pixels of an image, and the KL divergence over the
dimensions of its code, so that both are in the same unit, per image, and can be added.
Source: Kingma & Welling (2014), "Auto-Encoding Variational Bayes", arXiv:1312.6114.
"""

import paddle
import paddle.nn as nn
import paddle.nn.functional as F


def reparameterize(mu, logvar, eps=None):
    """A draw z = mu + sigma * eps from N(mu, sigma^2) through which gradients flow.

    mu, logvar: [N, J], with logvar = log sigma^2. eps: [N, J], standard normal; drawn
    if None. Returns z, [N, J]. Source: Kingma & Welling (2014), section 2.4.
    """
    _same_shape(mu, logvar, mu if eps is None else eps)
    if eps is None:
        eps = paddle.randn(mu.shape, dtype=mu.dtype)
    return mu + paddle.exp(0.5 * logvar) * eps


def gaussian_kl(mu, logvar):
    """KL(N(mu, sigma^2) || N(0, I)) of each row, in nats, summed over the J dimensions.

    mu, logvar: [N, J], with logvar = log sigma^2. Returns [N], >= 0 up to rounding.
    Source: Kingma & Welling (2014), appendix B.
    """
    _same_shape(mu, logvar)
    return 0.5 * (logvar.exp() + mu.square() - 1.0 - logvar).sum(axis=1)


def squared_error(x_hat, x):
    """Half the squared error of each pixel: -log N(x; x_hat, 1) less a constant.

    x_hat, x: [N, C, H, W]. Returns [N, C, H, W].
    """
    _same_shape(x_hat, x)
    return 0.5 * (x_hat - x).square()


def smooth_l1(x_hat, x):
    """Huber's loss of each pixel with its knee at 1, [N, C, H, W].

    It is quadratic for errors below 1 and linear beyond. Source: Huber (1964).
    """
    _same_shape(x_hat, x)
    return F.smooth_l1_loss(x_hat, x, reduction="none")


def bernoulli_nll(x_hat, x):
    """-log Bernoulli(x; x_hat) of each pixel in nats, [N, C, H, W]; x_hat is in (0, 1).

    A likelihood where x is 0 or 1. On grey pixels it is the cross-entropy: no longer a
    likelihood, and not 0 at its minimum, which over x_hat is still at x_hat = x.
    Raises ValueError where x or x_hat is not in [0, 1].
    """
    _same_shape(x_hat, x)
    _in_unit_range(x, "x")
    _in_unit_range(x_hat, "x_hat")
    return F.binary_cross_entropy(x_hat, x, reduction="none")


def reconstruction_loss(x_hat, x, pixel_loss=bernoulli_nll):
    """The `pixel_loss` summed over the pixels of each image: [N, C, H, W] -> [N]."""
    return pixel_loss(x_hat, x).sum(axis=[1, 2, 3])


def region_weighted_loss(
    x_hat, x, white_threshold=0.5, white_region_loss_coef=1.0,
    black_region_loss_coef=1.0, pixel_loss=smooth_l1,
):
    """A reconstruction loss that weighs the white region (ink) and the black apart.

    A pixel is white where x >= white_threshold and black elsewhere, so that each
    belongs to exactly one region. x_hat, x: [N, C, H, W] in [0, 1]. The coefs are >= 0.
    Returns [N], the weighted sum over the pixels of each image. Raises ValueError where
    x is not in [0, 1], and for a negative coef.
    """
    _in_unit_range(x, "x")
    if not (white_region_loss_coef >= 0 and black_region_loss_coef >= 0):
        raise ValueError("the coefs must be at least 0")
    white = (x >= white_threshold).astype(x.dtype)
    weight = white_region_loss_coef * white + black_region_loss_coef * (1.0 - white)
    return (weight * pixel_loss(x_hat, x)).sum(axis=[1, 2, 3])


def vae_loss(model, x, labels=None, pixel_loss=bernoulli_nll, beta=1.0):
    """The loss of a VAE on a batch, in nats per image, and its two terms.

    model: a VAE. x: [N, C, H, W] in [0, 1]. labels: int64 [N], where the model is told
    them. beta: the weight of the KL divergence, >= 0. With 1 and a `pixel_loss` that is
    a negative log-likelihood, the loss bounds -log p(x) from above, or
    -log p(x | label), up to the constant that `pixel_loss` leaves out; cross-entropy is
    one for black and white pixels only. Returns a dict of scalars, means over the
    batch, in which "loss" is "reconstruction" + beta * "kl".
    Source: Kingma & Welling (2014), equation 10; beta as in Higgins et al. (2017).
    """
    if not beta >= 0:
        raise ValueError(f"beta must be at least 0, got {beta}")
    x_hat, mu, logvar = model(x, labels=labels)
    reconstruction = reconstruction_loss(x_hat, x, pixel_loss).mean()
    kl = gaussian_kl(mu, logvar).mean()
    loss = reconstruction + beta * kl
    return {"loss": loss, "reconstruction": reconstruction, "kl": kl}


class VAE(nn.Layer):
    """A VAE of fully connected layers, with a normal posterior in J dimensions.

    image_shape: (C, H, W) of the images, which are in [0, 1]. hidden: the widths of the
    encoder's hidden layers; the decoder has them in reverse. latent_dim: J. classes:
    how many labels there are that encoder and decoder are told, 0 for a VAE without.
    Raises ValueError for sizes of another form, where labels are given to a VAE without
    or not to one with, and for images, codes and labels of another shape or range.
    Source for labels: Kingma et al. (2014), arXiv:1406.5298, section 2, model M2.
    """

    def __init__(
        self, image_shape=(1, 16, 16), hidden=(400,), latent_dim=20, classes=0
    ):
        super().__init__()
        if len(image_shape) != 3 or isinstance(hidden, int) or latent_dim < 1:
            found = f"{image_shape=}, {hidden=}, {latent_dim=}"
            raise ValueError(f"expected (C, H, W), (width, ...) and J, got {found}")
        self.image_shape = tuple(image_shape)
        self.latent_dim, self.classes = latent_dim, classes
        pixels = image_shape[0] * image_shape[1] * image_shape[2]
        down = [pixels + classes, *hidden]
        up = [latent_dim + classes, *reversed(hidden)]
        self.encoder = nn.Sequential(*_hidden_layers(down))
        self.to_mu = nn.Linear(down[-1], latent_dim)
        self.to_logvar = nn.Linear(down[-1], latent_dim)
        self.decoder = nn.Sequential(
            *_hidden_layers(up), nn.Linear(up[-1], pixels), nn.Sigmoid()
        )

    def encode(self, x, labels=None):
        """The posterior of each image: [N, C, H, W] -> mu [N, J], logvar [N, J]."""
        x = _floats(x, self.image_shape)
        h = self.encoder(self._with_labels(x.flatten(1), labels))  # [N, hidden[-1]]
        return self.to_mu(h), self.to_logvar(h)

    def decode(self, z, labels=None):
        """The mean image of each code: [N, J] -> [N, C, H, W] in (0, 1)."""
        z = _floats(z, [self.latent_dim])
        x_hat = self.decoder(self._with_labels(z, labels))  # [N, C * H * W]
        return x_hat.reshape([-1, *self.image_shape])

    def forward(self, x, eps=None, labels=None):
        """Encode, draw one code per image, decode. Returns (x_hat, mu, logvar)."""
        mu, logvar = self.encode(x, labels)
        return self.decode(reparameterize(mu, logvar, eps), labels), mu, logvar

    def _with_labels(self, rows, labels):
        """Rows [N, D], each with a 1 at the place of its label: [N, D + classes]."""
        if (labels is None) != (self.classes == 0):
            takes = "needs" if self.classes else "takes no"
            raise ValueError(f"a VAE with {self.classes} classes {takes} labels")
        if not self.classes:
            return rows
        labels = _labels_of(labels, len(rows), self.classes)
        return paddle.concat([rows, F.one_hot(labels, self.classes)], axis=1)


def _hidden_layers(widths):
    """A Linear and a ReLU for each step from one width to the next."""
    steps = zip(widths[:-1], widths[1:], strict=True)
    return [layer for a, b in steps for layer in (nn.Linear(a, b), nn.ReLU())]


def _same_shape(first, *others):
    """Raise ValueError unless these are tensors of one shape; others may broadcast."""
    if not all(paddle.is_tensor(x) for x in (first, *others)):
        raise ValueError("tensors are expected; use paddle.to_tensor")
    if any(list(x.shape) != list(first.shape) for x in others):
        shapes = [list(x.shape) for x in (first, *others)]
        raise ValueError(f"tensors must have one shape, got {shapes}")


def _in_unit_range(x, name):
    """Raise ValueError where an image is not in [0, 1]; NaN is not."""
    low, high = float(x.min()), float(x.max())
    if not (low >= 0 and high <= 1):
        raise ValueError(f"{name} must be in [0, 1], got {low:.4g} to {high:.4g}")


def _floats(x, shape):
    """x as float32; ValueError unless it is a tensor [N, *shape] of floats."""
    if not paddle.is_tensor(x):
        raise ValueError(f"a tensor is expected, got {type(x)}; use paddle.to_tensor")
    if not x.is_floating_point():
        raise ValueError(f"a tensor of floats is expected, got {x.dtype}")
    if list(x.shape[1:]) != list(shape) or x.ndim != 1 + len(shape):
        sides = ", ".join(map(str, shape))
        raise ValueError(f"expected [N, {sides}], got {list(x.shape)}")
    return x.astype("float32") if x.dtype == paddle.float64 else x


def _labels_of(labels, n, classes):
    """int64 [n]; ValueError unless all are from 0 to classes - 1."""
    labels = labels if paddle.is_tensor(labels) else paddle.to_tensor(labels)
    if labels.shape != [n] or labels.dtype not in (paddle.int32, paddle.int64):
        found = f"{labels.dtype} {list(labels.shape)}"
        raise ValueError(f"labels must be whole numbers [{n}], got {found}")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels must be from 0 to {classes - 1}, got {low} to {high}")
    return labels.astype("int64")
