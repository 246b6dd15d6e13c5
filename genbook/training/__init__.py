"""Training: `fit`, the book's recipes, checkpoints, and a cache of finished runs."""


def __getattr__(name):
    """`fit`, imported at first use: the command line reads a spec without loading Paddle."""
    if name == "fit":
        from genbook.training.trainer import fit

        return fit
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
