"""How each model of the book is trained: a function for each.

Each takes a `genbook.data.Dataset`, trains a fresh model on its images and returns the
model and its history. steps: None for as many as the book takes on this data set.
settings: more for `fit`. Raises TypeError for data of another kind.
"""

from genbook.data import Dataset, effort


def steps_for(data, usual, steps=None):
    """`steps` where given, else how many `data` takes where digits take `usual`.

    Raises TypeError where `data` is no Dataset.
    """
    if not isinstance(data, Dataset):
        raise TypeError(f"data must be a genbook.data.Dataset, got {type(data).__name__}")
    return effort(data.name) * usual if steps is None else steps
