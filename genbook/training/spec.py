"""The specification of a training: a model of the book, a data set, an output folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genbook import data

MODELS = ("autoencoder", "vae", "diffusion")
PREDICTIONS = ("eps", "v")
TIMESTEPS = 1000


@dataclass
class TrainingSpec:
    """What to train, and where to put it. None means the recipe's, or the data set's, own value.

    model: one of MODELS. data: a name that `data.load` knows. size: pixels per side, a multiple of
    4. steps, batch_size, lr, seed: as for `fit`; the batch is that of all processes together.
    prediction: what a diffusion model predicts, one of PREDICTIONS. root: the folder of the data
    set's files. out: the folder for the checkpoint and the model, by default MODEL-DATA. resume:
    whether to go on from the checkpoint there.
    """

    model: str
    data: str = "digits"
    size: int | None = None
    steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    seed: int = 0
    prediction: str | None = None
    root: str | None = None
    out: str = ""
    resume: bool = False

    def __post_init__(self):
        """Raise ValueError for what is wrong, before anything is loaded."""
        for what, value, known in (
            ("model", self.model, MODELS),
            ("data set", self.data, data.NAMES),
            ("prediction", self.prediction or "v", PREDICTIONS),
        ):
            if value not in known:
                raise ValueError(f"unknown {what} {value!r}; known are {', '.join(known)}")
        if self.prediction and self.model != "diffusion":
            raise ValueError(f"only diffusion predicts {self.prediction}; leave out prediction")
        if self.size is not None and (self.size < 8 or self.size % 4):
            raise ValueError(f"size must be a multiple of 4 from 8, got {self.size}")
        if self.lr is not None and not 0 < self.lr < float("inf"):
            raise ValueError(f"lr must be above 0, got {self.lr}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if not self.out:
            self.out = f"{self.model}-{self.data}"

    def load_data(self):
        """The data set; raises DataError where files are missing."""
        return data.load(self.data, size=self.size, root=self.root)

    def train(self):
        """Train, as one rank of several or alone, and save; return the file of the model.

        Raises what `fit` and `data.load` raise.
        """
        from genbook import models
        from genbook.diffusion import GaussianDiffusion, cosine_beta_schedule
        from genbook.training import ranks
        from genbook.training.recipes.autoencoder import train_autoencoder
        from genbook.training.recipes.diffusion import train_diffusion
        from genbook.training.recipes.vae import train_improved_vae

        dataset = self.load_data()
        settings = {"seed": self.seed, "folder": self.out, "resume": self.resume}
        given = {"steps": self.steps, "batch_size": self.batch_size, "lr": self.lr}
        settings |= {key: value for key, value in given.items() if value is not None}
        diffusion = None
        if self.model == "autoencoder":
            model, _ = train_autoencoder(dataset, **settings)
        elif self.model == "vae":
            model, _ = train_improved_vae(dataset, **settings)
        else:
            betas = cosine_beta_schedule(TIMESTEPS)
            diffusion = GaussianDiffusion(betas, self.prediction or "v")
            model, _ = train_diffusion(dataset, diffusion, **settings)
        file = Path(self.out) / "model.safetensors"
        if ranks.rank() == 0:
            _, channels, size, _ = dataset.images.shape
            metadata = {
                "data": self.data,
                "size": size,
                "channels": channels,
                "classes": dataset.classes,
                "seed": self.seed,
            }
            models.save(file, model, metadata, diffusion)
        return file
