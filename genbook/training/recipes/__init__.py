"""How each model of the book is trained: a function for each.

Each takes a `genbook.data.Dataset`, trains a fresh model on its images and returns the model and
its history. steps: None for as many as the book takes on this data set. settings: more for `fit`.
"""

# Larger images of more people take more steps than the digits of 16 x 16 pixels.
LONGER = {"digits": 1, "strokes": 1, "mnist": 4, "hanzi": 4}


def steps_for(data, steps):
    """How many steps a training of `steps` steps on the digits takes on `data`."""
    return LONGER[data.name] * steps
