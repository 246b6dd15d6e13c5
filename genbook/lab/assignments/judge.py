"""The judge of an assignment: the book's, trained in seconds."""

import paddle

from genbook.evaluation.judge import Judge, _shifted_cross_entropy
from genbook.training import fit


def train_quickly(data):
    """A Judge trained on small batches of the images and labels of `data`, a Dataset."""
    paddle.seed(0)
    judge = Judge(len(data.classes), data.images.shape[-1])
    fit(judge, _shifted_cross_entropy, data.images, data.labels, steps=600, batch_size=32)
    return judge
