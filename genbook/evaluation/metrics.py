"""What the figures show, as numbers.

A score of samples says something only beside the same score of real test images and
the number of samples. `standard_error` tells how much it owes to chance.

Numbers may come as arrays, tensors or lists of any type, and are computed in float64.
All functions raise ValueError for what is not finite, empty, or of another shape.
"""

import math

import numpy as np
import paddle
from scipy.spatial import cKDTree
from scipy.special import logsumexp

from genbook.vae import bernoulli_nll, gaussian_kl, reparameterize


def neighbour_agreement(codes, labels, k=10):
    """The share of the k nearest other codes with the same label, a mean over all.

    codes: [N, J]. labels: [N]. k: from 1 to N - 1. Returns a number in [0, 1]: 1 where
    the classes lie apart; where they are mixed at random, about the chance that two
    codes share a class. Raises ValueError for k out of range.
    """
    codes, labels = _float64(codes, 2), np.asarray(labels)
    if labels.shape != codes.shape[:1]:
        raise ValueError(f"{len(codes)} codes, labels of shape {list(labels.shape)}")
    if k != int(k) or not 1 <= k < len(codes):
        raise ValueError(f"k must be from 1 to {len(codes) - 1}, got {k}")
    _, index = cKDTree(codes).query(codes, k + 1)  # [N, k + 1]
    others = index != np.arange(len(codes))[:, np.newaxis]
    # Among identical codes a code may be missing from its own list; drop the last.
    others[others.all(axis=1), -1] = False
    neighbours = index[others].reshape(len(codes), k)
    return float((labels[neighbours] == labels[:, np.newaxis]).mean())


def empty_share(codes, drawn, radius=0.25):
    """The share of `drawn` codes that fall into a hole, far from all of `codes`.

    codes: [N, J]. drawn: [M, J]. Far is more than `radius` standard deviations of
    `codes`, measured in each dimension by itself, so that the share does not depend on
    the scale of the codes. Returns a number in [0, 1].
    """
    codes, drawn = _float64(codes, 2), _float64(drawn, 2)
    _same_width(codes, drawn)
    if not radius >= 0:
        raise ValueError(f"radius must be at least 0, got {radius}")
    spread = codes.std(axis=0)
    spread[spread == 0] = 1.0  # a dimension that never changes needs no scale
    distance, _ = cKDTree(codes / spread).query(drawn / spread)
    return float((distance > radius).mean())


def legibility(probabilities, threshold=0.9):
    """The share of images that a judge names with at least this probability.

    probabilities: [N, K], of each class. Returns a number in [0, 1].
    """
    return float((_probabilities(probabilities).max(axis=1) >= threshold).mean())


def class_entropy(probabilities):
    """How evenly the images spread over the classes that a judge sees in them.

    probabilities: [N, K]. Each image counts for its most probable class. Returns the
    entropy of the K shares over log K: 1 if all classes are equally frequent, 0 if
    there is only one.
    """
    probabilities = _probabilities(probabilities)
    classes = probabilities.shape[1]
    counts = np.bincount(probabilities.argmax(axis=1))
    share = counts[counts > 0] / len(probabilities)
    return float((share * np.log(1 / share)).sum() / np.log(classes))  # never -0.0


def frechet_distance(a, b):
    """The squared Frechet distance of two sets of features, each taken as normal.

    a: [N, J]. b: [M, J]. Returns |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), where
    A and B are the covariances; 0 for equal sets. It falls with N and M, so compare at
    equal numbers only. N and M are at least 2. Source: Dowson & Landau (1982);
    Heusel et al. (2017), arXiv:1706.08500.
    """
    a, b = _float64(a, 2), _float64(b, 2)
    _same_width(a, b)
    if len(a) < 2 or len(b) < 2:
        raise ValueError(f"a covariance takes 2 rows or more, got {len(a)}, {len(b)}")
    cov_a, cov_b = (np.atleast_2d(np.cov(x.T)) for x in (a, b))
    # A B has the eigenvalues of the positive semi-definite A^(1/2) B A^(1/2).
    root = np.sqrt(np.linalg.eigvals(cov_a @ cov_b).real.clip(min=0))
    shift = a.mean(axis=0) - b.mean(axis=0)
    distance = shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * root.sum()
    return max(0.0, float(distance))  # rounding can leave it a little less than 0


def nearest_distance(images, training):
    """The Euclidean distance of each image to the nearest training image, over pixels.

    images: [N, ...]. training: [M, ...]. Returns [N]. A sample much nearer than test
    images are is a copy.
    """
    images, training = _float64(images), _float64(training)
    _same_width(images, training)
    images, training = (a.reshape(len(a), -1) for a in (images, training))
    # |x - y|^2 = |x|^2 - 2 x y + |y|^2, of which the first is the same for all y.
    lengths = np.square(training).sum(axis=1)
    nearest = [
        (lengths - 2 * images[i : i + 200] @ training.T).argmin(axis=1)
        for i in range(0, len(images), 200)  # [200, M] numbers at a time
    ]
    return np.linalg.norm(images - training[np.concatenate(nearest)], axis=1)


def standard_error(score, samples, classes=None, repeats=200, seed=0):
    """The standard error of score(samples) by the bootstrap: Efron (1979).

    score: maps an array [N, ...] to a number. classes: [N], for samples whose classes
    were not drawn but chosen; each class then keeps its number of samples. Returns the
    standard deviation of the score over `repeats` draws of N samples with replacement.
    """
    samples, rng = np.asarray(samples), np.random.default_rng(seed)
    if samples.ndim == 0 or len(samples) == 0 or repeats < 2:
        raise ValueError(f"{samples.size} samples and {repeats} repeats are too few")
    classes = np.zeros(len(samples)) if classes is None else np.asarray(classes)
    if classes.shape != samples.shape[:1]:
        shape = list(classes.shape)
        raise ValueError(f"{len(samples)} samples, classes of shape {shape}")
    rows = [np.flatnonzero(classes == k) for k in np.unique(classes)]
    draws = np.hstack([rng.choice(r, (repeats, len(r))) for r in rows])  # [repeats, N]
    return float(np.std([score(samples[draw]) for draw in draws], ddof=1))


def elbo(model, x, samples=1, labels=None, eps=None):
    """The evidence lower bound of each image, in nats: numpy float64 [N].

    model: a VAE. x: [N, C, H, W], 0 or 1 in each pixel. labels: int64 [N], where the
    model is told them. The reconstruction term is a mean over `samples` codes of each
    image, the KL divergence is exact. eps: [samples, N, J], standard normal; drawn if
    None. Raises ValueError where a pixel is grey: the Bernoulli distribution has no
    probability for it. Source: Kingma & Welling (2014), equation 10.
    """
    mu, logvar, eps = _posterior(model, x, samples, labels, eps)
    codes = [reparameterize(mu, logvar, e) for e in eps]
    likelihoods = [_log_likelihood(model, x, z, labels) for z in codes]
    kl = gaussian_kl(mu, logvar).numpy()
    return np.mean(likelihoods, axis=0) - kl


def importance_weighted_bound(model, x, samples, labels=None, eps=None):
    """The importance-weighted bound of each image, in nats: numpy float64 [N].

    One draw of log (1/K) sum_k w_k with K = `samples` codes of each image and the
    weights w_k = p(x | z_k) p(z_k) / q(z_k | x). In expectation it is the ELBO for
    K = 1, never falls with K and never exceeds log p(x). Arguments and errors as for
    `elbo`.
    Source: Burda et al. (2016), arXiv:1509.00519, equation 8.
    """
    mu, logvar, eps = _posterior(model, x, samples, labels, eps)
    log_weights = []  # [K, N] at the end
    for e in eps:
        z = reparameterize(mu, logvar, e)
        # The constants of log p(z) and log q(z | x) cancel; (z - mu) / sigma is eps.
        log_ratio = 0.5 * (e.square() + logvar - z.square()).sum(axis=1)
        log_weights.append(_log_likelihood(model, x, z, labels) + log_ratio.numpy())
    return logsumexp(log_weights, axis=0) - math.log(len(log_weights))


def bits_per_dimension(nats, x):
    """A bound in nats of each image, usually negative, as bits per number in the image.

    nats: [N]. x: the images, [N, C, H, W]. Returns [N].
    """
    nats = _float64(nats, 1)
    if len(nats) != len(x):
        raise ValueError(f"{len(nats)} bounds for {len(x)} images")
    return -nats / (math.prod(x.shape[1:]) * math.log(2))


def _posterior(model, x, samples, labels, eps):
    """mu and logvar, [N, J], and the noise of all codes, [samples, N, J]."""
    if not paddle.is_tensor(x) or x.ndim != 4:
        raise ValueError("x must be a tensor [N, C, H, W]")
    if not bool(((x == 0) | (x == 1)).all()):
        raise ValueError("x has grey pixels; make each 0 or 1 first, as by (x >= 0.5)")
    if samples != int(samples) or samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}")
    with paddle.no_grad():
        mu, logvar = model.encode(x, labels)
    if eps is None:
        eps = paddle.randn([samples, *mu.shape])
    if list(eps.shape) != [samples, *mu.shape]:
        expected = [samples, *mu.shape]
        raise ValueError(f"eps must be {expected}, got {list(eps.shape)}")
    return mu, logvar, eps


def _log_likelihood(model, x, z, labels):
    """log p(x | z) of each image in nats, summed in float64: numpy [N]."""
    with paddle.no_grad():
        nll = bernoulli_nll(model.decode(z, labels), x)
    return -nll.numpy().sum(axis=(1, 2, 3), dtype=np.float64)


def _float64(numbers, ndim=None):
    """As float64; ValueError unless finite, of `ndim` dimensions and at least a row."""
    numbers = np.asarray(numbers)
    if numbers.dtype.kind not in "fiub":
        raise ValueError(f"numbers are expected, got {numbers.dtype}")
    if numbers.size == 0 or numbers.ndim != (ndim or max(2, numbers.ndim)):
        dimensions = f"{ndim or 'two or more'} dimensions"
        raise ValueError(f"expected {dimensions} and rows, got {list(numbers.shape)}")
    numbers = np.asarray(numbers, np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("there are NaN or infinite numbers")
    return numbers


def _same_width(a, b):
    """Raise ValueError unless the rows of a and b have one shape."""
    if a.shape[1:] != b.shape[1:]:
        shapes = f"{list(a.shape)} and {list(b.shape)}"
        raise ValueError(f"rows must have one shape, got {shapes}")


def _probabilities(p):
    """As float64 [N, K]; ValueError unless each row is a distribution of K >= 2."""
    p = _float64(p, 2)
    if p.shape[1] < 2 or p.min() < 0 or np.abs(p.sum(axis=1) - 1).max() > 1e-3:
        raise ValueError("each row must hold two probabilities or more whose sum is 1")
    return p
