"""A classifier of real images that judges made ones."""

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F

from genbook.training import fit

ROUNDING = 1e-3  # how far an image may leave its range


class Judge(nn.Layer):
    """A small convolutional classifier; its last hidden layer gives 64 features.

    Images are [N, 1, size, size] in [0, 1]; size is a multiple of 4. They may come
    as arrays or tensors of floats. Raises ValueError for others.
    """

    def __init__(self, classes=10, size=16):
        super().__init__()
        if classes < 1 or size < 4 or size % 4:
            raise ValueError(f"no such judge: {classes=}, {size=}")
        self.size = size
        self.body = nn.Sequential(
            nn.Conv2D(1, 32, 3, padding=1), nn.ReLU(),
            nn.MaxPool2D(2, 2),  # [N, 32, H/2, W/2]
            nn.Conv2D(32, 64, 3, padding=1), nn.ReLU(),
            nn.MaxPool2D(2, 2),  # [N, 64, H/4, W/4]
            nn.Flatten(), nn.Dropout(0.3),
            nn.Linear(64 * (size // 4) ** 2, 64), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(64, classes)

    def forward(self, x):
        """The logits of the classes: [N, 1, H, W] -> [N, classes]."""
        return self.head(self.body(x))

    def probabilities(self, images):
        """The probability of each class: images [N, 1, H, W] -> numpy [N, classes]."""
        return self._of_all(lambda x: F.softmax(self(x), axis=1), images)

    def features(self, images):
        """What distances are measured in: images [N, 1, H, W] -> numpy [N, 64]."""
        return self._of_all(self.body, images)

    @paddle.no_grad()
    def _of_all(self, function, images, size=1000):
        """The values of a function, in parts: what layers make of images is large."""
        images = self._checked(images)
        parts = (images[i : i + size] for i in range(0, len(images), size))
        return np.concatenate([function(paddle.to_tensor(x)).numpy() for x in parts])

    def _checked(self, images):
        """float32 [N, 1, size, size]; ValueError for other kinds and ranges."""
        images = np.asarray(images)
        if images.shape[1:] != (1, self.size, self.size) or len(images) == 0:
            expected = f"[N, 1, {self.size}, {self.size}]"
            raise ValueError(f"images must be {expected}, got {list(images.shape)}")
        if images.dtype.kind != "f" or not np.isfinite(images).all():
            found = images.dtype if images.dtype.kind != "f" else "NaN or infinity"
            raise ValueError(f"images must be floats in [0, 1], got {found}")
        low, high = images.min(), images.max()
        if low < -ROUNDING or high > 1 + ROUNDING:
            raise ValueError(f"images must be in [0, 1], got {low:.3g} to {high:.3g}")
        return images.astype(np.float32, copy=False)


def train_judge(data, steps=800, seed=0, **settings):
    """A Judge trained on the images and labels of a Dataset. settings: for `fit`."""
    if data.images.shape[1] != 1:
        raise ValueError(f"one channel is expected, got {data.images.shape[1]}")
    paddle.seed(seed)
    judge = Judge(len(data.classes), data.images.shape[-1])
    fit(judge, _shifted_cross_entropy, data.images, data.labels, steps=steps, seed=seed,
        name="judge", **settings)
    return judge


def _shifted_cross_entropy(judge, x, labels):
    """The cross-entropy on images shifted by up to a pixel: places matter less."""
    down, right = paddle.randint(-1, 2, [2]).numpy().tolist()
    return F.cross_entropy(judge(x.roll([down, right], axis=[2, 3])), labels)
