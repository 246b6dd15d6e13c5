"""Task 2c: how good the samples of a VAE are, as a share, and the points for it."""

import math

import numpy as np
import paddle
from scipy.spatial import cKDTree

from genbook.evaluation.metrics import class_entropy, legibility, nearest_distance

from .compare import Wrong, array, call, expect_shape

# Each scale maps a number to the share of the points: in a line between these, level beyond.
LEGIBILITY = {0.0: 0.0, 0.4: 0.45, 0.7: 1.0}  # as a share of that of real images
ENTROPY = {0.3: 0.0, 0.8: 1.0}  # of the classes; two of ten have 0.3, real images 1.0
COPIES = {0.2: 1.0, 0.5: 0.0}  # the share of samples nearer to training images than 99% of tests
VARIETY = {0.0: 0.0, 0.25: 1.0}  # the median distance to the nearest other, over real images' own
FLAWED = 0.8  # the share of the points for images that decode does not give as was asked
SAMPLES = 1000


@paddle.no_grad()
def score_samples(decode, latent_dim, judge, training, test, seed=0):
    """Draw N images from N(0, I) and have the judge read them.

    decode: maps z [N, latent_dim] to images [N, C, H, W] in [0, 1], each from its own z.
    judge: has .probabilities(images) -> [N, K]. training, test: real images.
    Returns a dict: "share", the samples' legibility over that of the test images, its
    parts, and "flaws", a list of words. Raises Wrong for output that is no image.
    """
    codes = np.random.default_rng(seed).standard_normal((SAMPLES, int(latent_dim)))
    z = paddle.to_tensor(codes, dtype="float32")
    images = array(call(decode, z, name="decode"), "decode(z)").astype("float32")
    expect_shape(images, (SAMPLES, *test.shape[1:]), "decode(z)")
    if not np.isfinite(images).all():
        raise Wrong("decode(z) holds numbers that are infinite or not a number")
    alone = array(call(decode, z[:10], name="decode"), "decode(z)")
    flaws = []
    if alone.shape != images[:10].shape or not np.allclose(alone, images[:10], atol=1e-3):
        flaws.append(
            "an image depends on the other codes of the batch, or on chance: decode "
            "must map each z by itself (was model.eval() forgotten?)"
        )
    low, high = images.min(), images.max()
    if low < 0 or high > 1:
        flaws.append(
            f"decode(z) has values from {low:.3g} to {high:.3g}, and images are in [0, 1]: here "
            "they were cut off there"
        )
        images = images.clip(0, 1)
    read, real = judge.probabilities(images), legibility(judge.probabilities(test))
    near = np.quantile(nearest_distance(test, training), 0.01)
    return {
        "share": legibility(read) / real,
        "legibility": legibility(read),
        "real": real,
        "entropy": class_entropy(read),
        "copies": float((nearest_distance(images, training) < near).mean()),
        "variety": _spacing(images[: len(test)]) / _spacing(test),
        "flaws": flaws,
    }


def _spacing(images):
    """The median of the distances of images to the nearest other one."""
    rows = images.reshape(len(images), -1)
    return float(np.median(cKDTree(rows).query(rows, 2)[0][:, 1]))


def on_scale(scale, value):
    """The share of the points that a number has on one of the scales above."""
    return float(np.interp(value, list(scale), list(scale.values())))


def points(score, most):
    """The points out of `most` for a score: the product of what its parts are worth.

    Prints what costs points.
    """
    share, entropy, copies, variety = (
        score[name] for name in ("share", "entropy", "copies", "variety")
    )
    parts = {
        f"the samples are {share:.0%} as legible as real images, and {max(LEGIBILITY):.0%} "
        "give all points": on_scale(LEGIBILITY, share),
        f"some digits hardly occur, as the class entropy of {entropy:.2f} says; "
        f"{max(ENTROPY)} is enough": on_scale(ENTROPY, entropy),
        f"{copies:.0%} of the samples are copies of training images, and {min(COPIES):.0%} "
        "may be": on_scale(COPIES, copies),
        f"the samples are too much alike: each is {variety:.0%} as far from the nearest other as "
        f"real images are, and {max(VARIETY):.0%} are enough": on_scale(VARIETY, variety),
        **dict.fromkeys(score["flaws"], FLAWED),
    }
    earned = round(most * math.prod(parts.values()), 1)
    short = "; ".join(words for words, part in parts.items() if part < 1)
    if short:
        print(f"{earned:g} of {most} points: {short}")
    return earned


def leaderboard_line(score, name="your name"):
    """A row of a Markdown table: name, share of real images' legibility, and its parts."""
    return (
        f"| {name} | {score['share']:.1%} | legibility {score['legibility']:.3f} of "
        f"{score['real']:.3f} | class entropy {score['entropy']:.2f} | copies "
        f"{score['copies']:.1%} |"
    )
