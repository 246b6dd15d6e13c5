"""Task 2c: how good the samples of a VAE are, as a share, and the points for it."""

import numpy as np
import paddle

from genbook.evaluation.metrics import class_entropy, legibility, nearest_distance

from .compare import Wrong, array, call, expect_shape

# One fifth of the points for each that is reached, by the legibility of the samples as a share
# of that of real images.
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)
MIN_ENTROPY = 0.9  # of the classes; real images have 1.0
SAMPLES = 1000
MAX_COPIES = 0.2  # the share of samples nearer to a training image than 99% of test images


@paddle.no_grad()
def score_samples(decode, latent_dim, judge, training, test, seed=0):
    """Draw N images from N(0, I) and have the judge read them.

    decode: maps z [N, latent_dim] to images [N, C, H, W] in [0, 1], each from its own z.
    judge: has .probabilities(images) -> [N, K]. training, test: real images.
    Returns a dict: "share", the samples' legibility over that of the test images, and its
    parts. Raises Wrong for output that is no image and for samples that are few classes,
    or copies of training images.
    """
    paddle.seed(seed)
    z = paddle.randn([SAMPLES, int(latent_dim)])
    images = array(call(decode, z, name="decode"), "decode(z)").astype("float32")
    expect_shape(images, (SAMPLES, *test.shape[1:]), "decode(z)")
    low, high = images.min(), images.max()
    if not (low >= 0 and high <= 1):
        raise Wrong(f"decode(z) has values from {low:.3g} to {high:.3g}; images are in [0, 1]")
    alone = array(call(decode, z[:10], name="decode"), "decode(z)")
    if not np.allclose(alone, images[:10], atol=1e-3):
        raise Wrong(
            "an image depends on the other codes of the batch, or on chance: decode "
            "must map each z by itself (was model.eval() forgotten?)"
        )
    read, real = judge.probabilities(images), legibility(judge.probabilities(test))
    near = np.quantile(nearest_distance(test, training), 0.01)
    score = {
        "share": legibility(read) / real,
        "legibility": legibility(read),
        "real": real,
        "entropy": class_entropy(read),
        "copies": float((nearest_distance(images, training) < near).mean()),
    }
    if score["entropy"] < MIN_ENTROPY:
        raise Wrong(
            f"the class entropy of the samples is {score['entropy']:.2f}, expected at "
            f"least {MIN_ENTROPY}: some digits hardly occur"
        )
    if score["copies"] > MAX_COPIES:
        share = f"{score['copies']:.0%} of the samples"
        raise Wrong(f"{share} are copies of training images, at most {MAX_COPIES:.0%} may be")
    return score


def points(score, most):
    """The points out of `most` for a score: a fifth for each threshold that is reached."""
    reached = sum(score["share"] >= threshold for threshold in THRESHOLDS)
    return most * reached / len(THRESHOLDS)


def leaderboard_line(score, name="your name"):
    """A row of a Markdown table: name, share of real images' legibility, and its parts."""
    return (
        f"| {name} | {score['share']:.1%} | legibility {score['legibility']:.3f} of "
        f"{score['real']:.3f} | class entropy {score['entropy']:.2f} | copies "
        f"{score['copies']:.1%} |"
    )
