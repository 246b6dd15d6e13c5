"""Wrong types, ranges, forms and orders: every public function says what it expects instead.

What is right in another form (float64, int32, lists, tensors) gives what the usual form gives.
"""

import re
import types
from functools import partial

import numpy as np
import paddle
import pytest

from genbook import models
from genbook.autoencoder import AutoEncoder, draw_codes
from genbook.data import Dataset, effort, fetch, files_of, load, strokes
from genbook.data.augmentation import distorted
from genbook.data.redrawing import redraw
from genbook.diffusion import (
    GaussianDiffusion,
    cosine_beta_schedule,
    extract,
    guided,
    hide_labels,
    linear_beta_schedule,
)
from genbook.evaluation import metrics
from genbook.evaluation.judge import Judge, train_judge
from genbook.figures import interactive, plots
from genbook.latent import CodeDenoiser, CodeScale
from genbook.training.loop import TrainingError, fit
from genbook.training.recipes import steps_for
from genbook.training.recipes.autoencoder import train_autoencoder
from genbook.training.recipes.diffusion import train_diffusion
from genbook.unet import UNet, timestep_embedding
from genbook.vae import (
    VAE,
    bernoulli_nll,
    gaussian_kl,
    reconstruction_loss,
    region_weighted_loss,
    reparameterize,
    smooth_l1,
    squared_error,
    vae_loss,
)

RNG = np.random.default_rng(0)
IMAGES = RNG.random((4, 1, 8, 8), dtype="float32")
LABELS = np.array([0, 1, 2, 0])
CLASSES = ("a", "b", "c")
X = paddle.to_tensor(IMAGES)
FLAT = X[:, 0]  # [4, 8, 8], which broadcasts with X to [4, 4, 8, 8]
NAN = paddle.to_tensor(np.where(np.arange(256).reshape(4, 1, 8, 8) == 9, np.nan, IMAGES))
CODES = paddle.to_tensor(RNG.standard_normal((4, 3)), dtype="float32")
Y = paddle.to_tensor(LABELS)
T = 10
STEP = paddle.to_tensor([0, 3, 5, 9])
PROCESS = GaussianDiffusion(cosine_beta_schedule(T), "v")
NOTHING = lambda x_t, t: 0 * x_t  # predicts 0
VAE_3 = VAE((1, 8, 8), hidden=(8,), latent_dim=3, classes=3)
PLAIN = VAE((1, 8, 8), hidden=(8,), latent_dim=3)
UNET = UNet(1, 8, classes=3)
DENOISER = CodeDenoiser(3, width=8, classes=3)
JUDGE = Judge(3, 8)
P = [[0.5, 0.5], [0.9, 0.1]]


def dataset(images=IMAGES, labels=LABELS, classes=CLASSES):
    return Dataset("mine", "train", images, labels, classes)


def whole(*numbers):
    return paddle.to_tensor(numbers)


def trained(*data, loss=vae_loss, lr=1e-3, **settings):
    data = data or (IMAGES,)
    return fit(PLAIN, loss, *data, **{"steps": 2, "batch_size": 2, "lr": lr, **settings})


# name: (call, what the message says)
REFUSED = {
    # data
    "a flat image": (partial(dataset, IMAGES[:, 0]), "must be [N, 1 or 3, size, size]"),
    "channels last": (partial(dataset, IMAGES.transpose(0, 2, 3, 1)), "must be [N, 1 or 3"),
    "not square": (partial(dataset, IMAGES[..., :4]), "must be [N, 1 or 3, size, size]"),
    "no images": (partial(dataset, IMAGES[:0], LABELS[:0]), "must be [N, 1 or 3"),
    "bytes": (partial(dataset, (255 * IMAGES).astype("uint8")), "divide by 255"),
    "0 to 255": (partial(dataset, 255 * IMAGES), "in [0, 1], not from"),
    "-1 to 1": (partial(dataset, 2 * IMAGES - 1), "in [0, 1], not from"),
    "one NaN": (partial(dataset, NAN.numpy()), "in [0, 1], not from nan"),
    "words": (partial(dataset, [["a"]]), "must be [N, 1 or 3"),
    "1 to K": (partial(dataset, labels=LABELS + 1), "from 0 to 2, for 3 classes, not from 1 to 3"),
    "label -1": (partial(dataset, labels=LABELS - 1), "from 0 to 2"),
    "float labels": (partial(dataset, labels=LABELS / 1.0), "labels must be whole numbers [4]"),
    "one-hot labels": (partial(dataset, labels=np.eye(3)[LABELS]), "labels must be whole"),
    "too few labels": (partial(dataset, labels=LABELS[:3]), "whole numbers [4], one for each"),
    "number of classes": (partial(dataset, classes=3), "classes must be names, one for each label"),
    "unknown set": (partial(load, "letters"), "unknown data set 'letters'; known are"),
    "unknown to fetch": (partial(fetch, "letters"), "unknown data set"),
    "files of no set": (partial(files_of, 7), "unknown data set 7"),
    "size": (partial(load, "digits", size=8.0), "size must be a whole number"),
    "half a numeral": (partial(strokes.draw, 2.5), "n must be a whole number"),
    "huge images": (partial(load, "digits", size=9_999_999), "from 8 to 256 pixels"),
    "numeral of half a pixel": (partial(strokes.draw, 2, size=8.5), "size must be a whole number"),
    "blank scan": (partial(redraw, np.zeros((64, 64), "uint8"), 28), "expected ink"),
    "scan of floats": (partial(redraw, np.ones((64, 64)), 28), "expected ink, uint8"),
    "distorted bytes": (partial(distorted, np.ones((2, 1, 8, 8), int), RNG), "floats [N, C, H, W]"),
    "no steps": (lambda: trained(steps=0), "steps must be a whole number of at least 1, got 0"),
    "no autoencoder steps": (lambda: train_autoencoder(dataset(), steps=0), "at least 1, got 0"),
    "no diffusion steps": (lambda: train_diffusion(dataset(), PROCESS, steps=-1), "at least 1"),
    # training
    "a Dataset to fit": (lambda: trained(dataset()), "as the images of a Dataset are"),
    "nothing to fit": (lambda: fit(PLAIN, vae_loss, steps=1), "arrays of one length, got []"),
    "lr 0": (lambda: trained(lr=0), "lr must be above 0, got 0"),
    "lr NaN": (lambda: trained(lr=float("nan")), "lr must be above 0"),
    "half a step of training": (lambda: trained(steps=2.5), "steps must be a whole number"),
    "half an image": (lambda: trained(batch_size=2.5), "batch_size must be a whole number"),
    "no seed": (lambda: trained(seed=None), "seed must be a whole number of at least 0, got None"),
    "loss None": (lambda: trained(loss=lambda *a: None), "scalar tensors, one of them"),
    "loss of numbers": (lambda: trained(loss=lambda *a: 1.0), "got {'loss': 1.0}"),
    "save what was not built": (lambda: models.save("x", PLAIN, {}), "checkpoint.build(VAE, ...)"),
    # autoencoder
    "encode an array": (
        lambda: AutoEncoder(1).encode(IMAGES),
        "got <class 'numpy.ndarray'>; use p",
    ),
    "encode bytes": (lambda: AutoEncoder(1)((255 * X).astype("uint8")), "a tensor of floats"),
    "another channel": (lambda: AutoEncoder(3)(X), "expected [N, 3, H, W], got [4, 1, 8, 8]"),
    "no channel": (lambda: AutoEncoder(1)(FLAT), "expected [N, 1, H, W]"),
    "decode codes of a VAE": (lambda: AutoEncoder(1).decode(CODES), "expected [N, 32, H, W]"),
    "codes like none": (lambda: draw_codes(CODES[:0], 2), "cannot draw 2 codes like 0"),
    "no codes but -1": (lambda: draw_codes(CODES, -1), "cannot draw -1 codes like 4"),
    # VAE
    "noise broadcasts": (lambda: reparameterize(CODES, CODES, CODES[:1]), "one shape"),
    "logvar broadcasts": (lambda: gaussian_kl(CODES, CODES[0]), "one shape, got [[4, 3], [3]]"),
    "squared error broadcasts": (lambda: squared_error(X, FLAT), "[[4, 1, 8, 8], [4, 8, 8]]"),
    "Huber broadcasts": (lambda: smooth_l1(X, FLAT), "one shape"),
    "cross-entropy broadcasts": (lambda: bernoulli_nll(X, FLAT), "one shape"),
    "reconstruction broadcasts": (lambda: reconstruction_loss(X, FLAT), "one shape"),
    "regions broadcast": (lambda: region_weighted_loss(X, FLAT), "one shape"),
    "cross-entropy of -1 to 1": (lambda: bernoulli_nll(X, 2 * X - 1), "x must be in [0, 1], got -"),
    "cross-entropy of 0 to 255": (lambda: vae_loss(PLAIN, 255 * X), "x must be in [0, 1]"),
    "cross-entropy by -1 to 1": (lambda: bernoulli_nll(2 * X - 1, X), "x_hat must be in [0, 1]"),
    "cross-entropy of NaN": (lambda: vae_loss(PLAIN, NAN), "must be in [0, 1], got nan"),
    "regions of -1 to 1": (lambda: region_weighted_loss(X, 2 * X - 1), "x must be in [0, 1]"),
    "negative coef": (lambda: region_weighted_loss(X, X, 0.5, -1.0), "coefs must be at least 0"),
    "negative beta": (lambda: vae_loss(PLAIN, X, beta=-1.0), "beta must be at least 0"),
    "beta NaN": (lambda: vae_loss(PLAIN, X, beta=float("nan")), "beta must be at least 0"),
    "channels last in a VAE": (lambda: PLAIN(X.transpose([0, 2, 3, 1])), "expected [N, 1, 8, 8]"),
    "array in a VAE": (lambda: PLAIN(IMAGES), "got <class 'numpy.ndarray'>; use paddle.to"),
    "codes of another width": (lambda: PLAIN.decode(CODES[:, :2]), "expected [N, 3], got [4, 2]"),
    "VAE label K": (lambda: VAE_3(X, labels=Y + 1), "labels must be from 0 to 2, got 1 to 3"),
    "VAE label -1": (lambda: VAE_3.decode(CODES, Y - 1), "labels must be from 0 to 2, got -1"),
    "VAE label of half": (lambda: VAE_3(X, labels=Y / 2), "numbers [4], got paddle.float32 [4]"),
    "too few VAE labels": (lambda: VAE_3(X, labels=Y[:1]), "labels must be whole numbers [4]"),
    "labels for a VAE without": (lambda: PLAIN(X, labels=Y), "with 0 classes takes no labels"),
    "VAE without channels": (lambda: VAE((16, 16)), "expected (C, H, W)"),
    "VAE of one width": (lambda: VAE(hidden=400), "hidden=400"),
    "VAE of no codes": (lambda: VAE(latent_dim=0), "latent_dim=0"),
    "KL of arrays": (lambda: gaussian_kl(IMAGES, IMAGES), "tensors are expected"),
    # diffusion
    "no betas": (lambda: linear_beta_schedule(0), "timesteps must be a whole number from 1, got 0"),
    "betas in words": (lambda: cosine_beta_schedule("10"), "a whole number from 1, got '10'"),
    "half a beta": (lambda: cosine_beta_schedule(2.5), "timesteps must be a whole number"),
    "clip 0": (lambda: GaussianDiffusion([0.1], clip=0), "clip must be above 0"),
    "t of half": (lambda: extract(PROCESS.betas, STEP / 2), "t must be whole numbers [N]"),
    "t in a column": (lambda: extract(PROCESS.betas, STEP[:, None]), "t must be whole numbers [N]"),
    "no t": (
        lambda: extract(PROCESS.betas, STEP[:0]),
        "t must be whole numbers [N], got int64 [0]",
    ),
    "noise of q broadcasts": (lambda: PROCESS.q_sample(X, STEP, FLAT), "expected one shape"),
    "one t for four": (lambda: PROCESS.q_sample(X, STEP[:1]), "a t [N], got [[4, 1, 8, 8]"),
    "posterior broadcasts": (
        lambda: PROCESS.q_posterior_mean_variance(X, FLAT, STEP),
        "expected one shape",
    ),
    "start from noise": (lambda: PROCESS.predict_start_from_noise(X, STEP, FLAT), "one shape"),
    "start from v": (lambda: PROCESS.predict_start_from_v(X, STEP, FLAT), "one shape"),
    "noise from start": (lambda: PROCESS.predict_noise_from_start(X, STEP, FLAT), "one shape"),
    "target broadcasts": (lambda: PROCESS.target(X, STEP, FLAT), "one shape"),
    "prediction broadcasts": (lambda: PROCESS.p_losses(lambda x, t: FLAT, X, STEP), "one shape"),
    "estimate broadcasts": (lambda: PROCESS.predict_start(lambda x, t: FLAT, X, STEP), "one shape"),
    "noise of p broadcasts": (lambda: PROCESS.p_sample(NOTHING, X, STEP, FLAT), "one shape"),
    "shape of 0": (lambda: PROCESS.p_sample_loop(NOTHING, [0, 1, 8, 8]), "each number in shape"),
    "DDIM shape of half": (
        lambda: PROCESS.ddim_sample_loop(NOTHING, [1, 1, 8.0, 8], 2),
        "each number in shape",
    ),
    "t_prev -50": (
        lambda: PROCESS.ddim_sample(NOTHING, X, STEP, STEP - 50),
        "t_prev must be from -1 to t - 1",
    ),
    "t_prev above t": (
        lambda: PROCESS.ddim_sample(NOTHING, X, STEP, STEP + 1),
        "t_prev must be from -1 to t - 1",
    ),
    "t_prev = t": (lambda: PROCESS.ddim_sample(NOTHING, X, STEP, STEP), "from -1 to t - 1"),
    "one t_prev for four": (
        lambda: PROCESS.ddim_sample(NOTHING, X, STEP, whole(-1)),
        "t_prev must be from -1",
    ),
    "t_prev -2": (
        lambda: PROCESS.ddim_sample(NOTHING, X, STEP, whole(-1, -1, -1, -2)),
        "t_prev must be from -1",
    ),
    "noise of DDIM broadcasts": (
        lambda: PROCESS.ddim_sample(NOTHING, X, STEP, STEP - 1, 1.0, FLAT),
        "expected one shape",
    ),
    "eta -1": (lambda: PROCESS.ddim_sample(NOTHING, X, STEP, STEP - 1, -1.0), "eta must be at"),
    "half a step": (
        lambda: PROCESS.ddim_timesteps(5.0),
        "steps must be whole, from 1 to 10, got 5.0",
    ),
    "too many steps": (lambda: PROCESS.ddim_sample_loop(NOTHING, X.shape, 11), "from 1 to 10"),
    "hidden label K + 1": (lambda: hide_labels(Y + 2, 3), "labels must be from 0 to 3, got 2 to 4"),
    "hidden label -1": (lambda: hide_labels(Y - 1, 3), "labels must be from 0 to 3, got -1"),
    "hidden float label": (lambda: hide_labels(Y / 1, 3), "labels must be whole numbers"),
    "share 2": (lambda: hide_labels(Y, 3, share=2), "share must be from 0 to 1"),
    "scale -1": (lambda: guided(UNET, Y, -1), "scale must be at least 0"),
    "labels of others": (lambda: guided(UNET, Y[:2])(X, STEP), "2 labels for 4 images"),
    # networks
    "odd embedding": (lambda: timestep_embedding(STEP, 5), "an even dim"),
    "embedding of a column": (lambda: timestep_embedding(STEP[:, None], 4), "expected t [N]"),
    "U-Net of width 12": (lambda: UNet(1, 12), "no such U-Net"),
    "U-Net with flat images": (lambda: UNET(FLAT, STEP), "expected [N, 1, H, W], got [4, 8, 8]"),
    "U-Net of width 0": (lambda: UNet(1, 0), "no such U-Net: channels=1, width=0, classes=0"),
    "U-Net without channels": (lambda: UNet(0, 8), "no such U-Net"),
    "U-Net of -1 classes": (lambda: UNet(1, 8, -1), "no such U-Net"),
    "U-Net with an array": (lambda: UNET(IMAGES, STEP), "got <class 'numpy.ndarray'>; use paddle"),
    "U-Net with bytes": (lambda: UNET((255 * X).astype("uint8"), STEP), "a tensor of floats"),
    "U-Net with colours": (lambda: UNET(X.expand([4, 3, 8, 8]), STEP), "[N, 1, H, W], got [4, 3,"),
    "U-Net with odd rows": (lambda: UNET(X[:, :, 1:], STEP), "multiples of 4, got [7, 8]"),
    "U-Net with odd columns": (lambda: UNET(X[..., 1:], STEP), "multiples of 4, got [8, 7]"),
    "U-Net with one t": (lambda: UNET(X, STEP[:1]), "t must be whole numbers [4]"),
    "U-Net with t -1": (lambda: UNET(X, STEP - 1), "t must be from 0"),
    "U-Net with label 4": (lambda: UNET(X, STEP, Y + 2), "labels must be from 0 to 3, got 2 to 4"),
    "U-Net with label -1": (lambda: UNET(X, STEP, Y - 1), "labels must be from 0 to 3"),
    "U-Net with labels of half": (
        lambda: UNET(X, STEP, Y / 2),
        "labels must be whole numbers [4], got paddle.float32 [4]",
    ),
    "odd code network": (
        lambda: CodeDenoiser(3, width=7),
        "no such network: latent_dim=3, width=7, blocks=2, classes=0",
    ),
    "code network of width 0": (lambda: CodeDenoiser(3, width=0), "no such network"),
    "code network of no code": (lambda: CodeDenoiser(0), "no such network"),
    "code network of -1 blocks": (lambda: CodeDenoiser(3, blocks=-1), "no such network"),
    "code network of -1 classes": (lambda: CodeDenoiser(3, classes=-1), "no such network"),
    "array of codes": (lambda: DENOISER(CODES.numpy(), STEP), "got <class 'numpy.ndarray'>; use p"),
    "whole codes": (
        lambda: DENOISER(CODES.astype("int64"), STEP),
        "a tensor of floats is expected",
    ),
    "codes with t -1": (lambda: DENOISER(CODES, STEP - 1), "t must be from 0"),
    "codes with label -1": (lambda: DENOISER(CODES, STEP, Y - 1), "labels must be from 0 to 3"),
    "codes with labels of half": (
        lambda: DENOISER(CODES, STEP, Y / 2),
        "labels must be whole numbers [4], got paddle.float32 [4]",
    ),
    "codes of J - 1": (lambda: DENOISER(CODES[:, :2], STEP), "expected [N, 3], got [4, 2]"),
    "codes with one t": (lambda: DENOISER(CODES, STEP[:1]), "t must be whole numbers [4]"),
    "codes with label 4": (lambda: DENOISER(CODES, STEP, Y + 2), "labels must be from 0 to 3"),
    "scale of one code": (lambda: CodeScale(CODES, CODES[0]), "both be [N, J], got [4, 3] and [3]"),
    "scale of images": (lambda: CodeScale(FLAT, FLAT), "mu and logvar must both be [N, J]"),
    "scaled code without N": (lambda: CodeScale(CODES, CODES).to_unit(CODES[0]), "expected [N, 3]"),
    "code of J - 1": (lambda: CodeScale(CODES, CODES).to_code(CODES[:, :1]), "expected [N, 3]"),
    # judge and metrics
    "judge of size 10": (lambda: Judge(3, 10), "no such judge"),
    "judge of another size": (lambda: JUDGE.features(np.zeros((2, 1, 4, 4))), "[N, 1, 8, 8]"),
    "judge of bytes": (lambda: JUDGE.features((255 * IMAGES).astype("uint8")), "floats in [0, 1]"),
    "judge of -1 to 1": (lambda: JUDGE.features(2 * IMAGES - 1), "in [0, 1], got -"),
    "judge of NaN": (lambda: JUDGE.probabilities(NAN), "got NaN"),
    "judge of nothing": (lambda: JUDGE.probabilities(IMAGES[:0]), "images must be [N, 1, 8, 8]"),
    "judge of colours": (
        lambda: train_judge(dataset(np.repeat(IMAGES, 3, axis=1))),
        "one channel is expected, got 3",
    ),
    "neighbours of others": (lambda: metrics.neighbour_agreement(CODES, LABELS[:3], 1), "labels"),
    "half a neighbour": (lambda: metrics.neighbour_agreement(CODES, LABELS, 1.5), "from 1 to 3"),
    "no neighbour": (lambda: metrics.neighbour_agreement(CODES, LABELS, 0), "from 1 to 3, got 0"),
    "holes of another J": (
        lambda: metrics.empty_share(CODES, CODES[:, :2]),
        "rows must have one shape, got [4, 3] and [4, 2]",
    ),
    "negative radius": (lambda: metrics.empty_share(CODES, CODES, -1), "radius must be at least 0"),
    "NaN probabilities": (lambda: metrics.legibility([[np.nan, 1.0]]), "NaN or infinite"),
    "logits": (lambda: metrics.legibility([[3.0, -1.0]]), "whose sum is 1"),
    "negative probability": (lambda: metrics.legibility([[1.5, -0.5]]), "whose sum is 1"),
    "sum of 1.01": (lambda: metrics.legibility([[0.5, 0.51]]), "whose sum is 1"),
    "one class": (lambda: metrics.class_entropy([[1.0]]), "two probabilities or more"),
    "no probabilities": (lambda: metrics.class_entropy(np.zeros((0, 3))), "and rows"),
    "features of another J": (lambda: metrics.frechet_distance(CODES, CODES[:, :2]), "one shape"),
    "one feature row": (lambda: metrics.frechet_distance(CODES[:1], CODES), "2 rows or more"),
    "NaN features": (lambda: metrics.frechet_distance(np.full((3, 2), np.nan), CODES), "NaN"),
    "features in words": (lambda: metrics.frechet_distance([["a"]], CODES), "numbers are expected"),
    "nearest of another size": (lambda: metrics.nearest_distance(X, X[..., :4]), "one shape"),
    "nearest of numbers": (
        lambda: metrics.nearest_distance(LABELS, LABELS),
        "expected two or more d",
    ),
    "nearest of nothing": (lambda: metrics.nearest_distance(IMAGES, IMAGES[:0]), "and rows"),
    "error of nothing": (
        lambda: metrics.standard_error(np.mean, []),
        "0 samples and 200 repeats are",
    ),
    "error of a number": (lambda: metrics.standard_error(np.mean, 5.0), "too few"),
    "error of one draw": (lambda: metrics.standard_error(np.mean, [1.0], repeats=1), "too few"),
    "bound of an array": (lambda: metrics.elbo(PLAIN, IMAGES.round()), "x must be a tensor"),
    "bound of a flat image": (
        lambda: metrics.elbo(PLAIN, FLAT.round()),
        "x must be a tensor [N, C",
    ),
    "bound with other noise": (
        lambda: metrics.elbo(PLAIN, X.round(), 2, eps=paddle.zeros([1, 4, 3])),
        "eps must be [2, 4, 3], got [1, 4, 3]",
    ),
    "half a code": (lambda: metrics.importance_weighted_bound(PLAIN, X.round(), 1.5), "at least 1"),
    "bits of others": (lambda: metrics.bits_per_dimension([1.0], X), "1 bounds for 4 images"),
    # figures
    "grid of flat images": (lambda: plots.image_grid(FLAT), "images must be [N, 1 or 3, H, W]"),
    "grid of bytes": (lambda: plots.image_grid((255 * IMAGES).astype("uint8")), "uint8 from 0"),
    "grid of 0 to 255": (lambda: plots.image_grid(255 * X), "in [0, 1], got float32 from"),
    "grid of -1 to 1": (lambda: plots.image_grid(X.square() * 2 - 1), "in [0, 1], got float32"),
    "grid of NaN": (lambda: plots.image_grid(NAN), "NaN"),
    "no columns": (lambda: plots.image_grid(X, 0), "columns must be at least 1"),
    "no rows": (lambda: plots.image_rows({}), "expected a dict"),
    "rows without labels": (lambda: plots.image_rows([X]), "expected a dict with labels"),
    "curves without labels": (lambda: plots.curves([1], [[1]]), "expected a dict with labels"),
    "scatter without labels": (lambda: plots.latent_scatter([CODES], Y, CLASSES), "expected a d"),
    "unknown loss": (lambda: plots.loss_curves({"loss": [1.0]}, ["kl"]), "['kl']"),
    "short curve": (lambda: plots.curves([1, 2], {"a": [1]}), "'a' has the shape [1], x [2]"),
    "histogram of NaN": (lambda: plots.histograms({"a": [1, np.nan]}), "NaN"),
    "scatter in 3 D": (lambda: plots.latent_scatter({"a": CODES}, Y, CLASSES), "the shape [4, 2]"),
    "scatter of others": (
        lambda: plots.latent_scatter({"a": CODES[:, :2]}, Y[:2], CLASSES),
        "the shape [2, 2], got [4, 2]",
    ),
    "one cell": (lambda: plots.latent_plane(PLAIN.decode, cells=1), "cannot draw cells=1"),
    "points in 3 D": (lambda: plots.planes({"a": {"points": CODES}}, 2), "['N', 2]"),
    "no panels": (lambda: plots.planes({}, 2), "expected a dict"),
    "explorer of others": (lambda: interactive.explorer({"a": PLAIN}, {}, [], ()), "differ"),
    "explorer in 3 D": (
        lambda: interactive.explorer({"a": PLAIN}, {"a": CODES.numpy()}, LABELS, CLASSES),
        "codes of 'a' are [4, 3], not [4, 2]",
    ),
    "no last state": (lambda: interactive.timeline(PROCESS, NOTHING, {3: X}), "among them 0"),
    "state of step 11": (lambda: interactive.timeline(PROCESS, NOTHING, {0: X, 11: X}), "0 to 10"),
    "states that differ": (
        lambda: interactive.timeline(PROCESS, NOTHING, {0: X, 3: X[:2]}),
        "must have one shape",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_wrong_is_one_clear_error(name):
    call, says = REFUSED[name]
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message and "Hint" not in message
    assert not message[0].isupper() and message[-1] != "."


INDEXED = {
    "q_sample": lambda t: PROCESS.q_sample(X, t),
    "q_posterior_mean_variance": lambda t: PROCESS.q_posterior_mean_variance(X, X, t),
    "predict_start_from_noise": lambda t: PROCESS.predict_start_from_noise(X, t, X),
    "predict_noise_from_start": lambda t: PROCESS.predict_noise_from_start(X, t, X),
    "predict_start_from_v": lambda t: PROCESS.predict_start_from_v(X, t, X),
    "target": lambda t: PROCESS.target(X, t, X),
    "predict_start": lambda t: PROCESS.predict_start(NOTHING, X, t),
    "p_losses": lambda t: PROCESS.p_losses(NOTHING, X, t),
    "p_mean_variance": lambda t: PROCESS.p_mean_variance(NOTHING, X, t),
    "p_sample": lambda t: PROCESS.p_sample(NOTHING, X, t),
    "ddim_sample": lambda t: PROCESS.ddim_sample(NOTHING, X, t, whole(-1, -1, -1, -1)),
}


@pytest.mark.parametrize("step", [-1, -T, T])
@pytest.mark.parametrize("name", INDEXED)
def test_a_step_outside_the_process_is_an_error(name, step):
    with pytest.raises((IndexError, ValueError), match="must be from"):
        INDEXED[name](whole(0, 1, 2, step))


def same(a, b):
    np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_a_dataset_takes_other_types():
    other = dataset(IMAGES.astype("float64"), LABELS.astype("int32").tolist(), list(CLASSES))
    assert other.images.dtype == np.float32 and other.labels.dtype == np.int64
    assert other.classes == CLASSES
    same(other.images, IMAGES)
    assert dataset().images is IMAGES  # and copies nothing without need
    assert steps_for(other, 100) == 100 and effort("mnist") > effort("mine") == 1


BYTES = (255 * IMAGES).astype("uint8")
FORMS = {
    "uint8": BYTES,
    "int64": BYTES.astype("int64"),
    "tensor": paddle.to_tensor(BYTES.astype("float32")),
    "list": BYTES.tolist(),
}


@pytest.mark.parametrize("form", FORMS)
def test_metrics_do_not_depend_on_the_type(form):
    others = 255 - BYTES.astype(float)
    expected = metrics.nearest_distance(BYTES.astype(float), others)
    same(metrics.nearest_distance(FORMS[form], others), expected)
    nearest = [np.sqrt(((x - others) ** 2).sum((1, 2, 3)).min()) for x in BYTES.astype(float)]
    np.testing.assert_allclose(expected, nearest)
    rows = BYTES[:, 0, 0].astype(float)
    found = paddle.to_tensor(BYTES[:, 0, 0]) if form == "tensor" else BYTES[:, 0, 0]
    found = found.tolist() if form == "list" else found
    for score in (
        lambda x: metrics.neighbour_agreement(x, LABELS, 2),
        lambda x: metrics.empty_share(x, rows + 1),
        lambda x: metrics.frechet_distance(x, rows + 1),
        lambda x: metrics.bits_per_dimension([1, 2, 3, 4], X),
    ):
        same(score(found), score(rows))


def test_one_feature_has_a_frechet_distance():
    a = np.array([[0.0], [2.0]])
    assert metrics.frechet_distance(a, a + 3) == pytest.approx(9)
    assert metrics.frechet_distance(a, 2 * a) == pytest.approx(1 + 2)  # deviations sqrt(2), sqrt(8)


ROWS = FLAT[:, :3]  # [4, 3, 8]
TAKE_ROWS = {
    "neighbour_agreement": lambda x: metrics.neighbour_agreement(x, LABELS, 1),
    "empty_share": lambda x: metrics.empty_share(x, CODES),
    "empty_share, drawn": lambda x: metrics.empty_share(CODES, x),
    "frechet_distance": lambda x: metrics.frechet_distance(x, CODES),
    "frechet_distance, second": lambda x: metrics.frechet_distance(CODES, x),
    "legibility": metrics.legibility,
    "class_entropy": metrics.class_entropy,
}


@pytest.mark.parametrize("name", TAKE_ROWS)
def test_metrics_of_rows_refuse_images(name):
    with pytest.raises(ValueError, match=r"expected 2 dimensions and rows, got \[4, 3, 8\]"):
        TAKE_ROWS[name](ROWS)


def test_labels_and_steps_may_be_lists():
    for model in (PLAIN, UNET, DENOISER):
        model.eval()
    same(VAE_3.decode(CODES, LABELS.tolist()), VAE_3.decode(CODES, Y))
    same(UNET(X, STEP.tolist(), LABELS.tolist()), UNET(X, STEP, Y))
    same(DENOISER(CODES, STEP.tolist(), LABELS), DENOISER(CODES, STEP, Y))
    same(hide_labels(LABELS.tolist(), 3, share=0), Y)


def test_networks_take_float64_and_int32():
    for model in (AutoEncoder(1), PLAIN, UNET):
        model.eval()
    same(AutoEncoder(1)(X.astype("float64")).shape, X.shape)
    same(PLAIN.encode(X.astype("float64"))[0], PLAIN.encode(X)[0])
    small = Y.astype("int32")
    same(VAE_3.decode(CODES, small), VAE_3.decode(CODES, Y))
    same(UNET(X.astype("float64"), STEP.astype("int32"), small), UNET(X, STEP, Y))
    same(DENOISER(CODES.astype("float64"), STEP.astype("int32"), small), DENOISER(CODES, STEP, Y))
    assert hide_labels(small, 3, share=0).dtype == paddle.int64
    same(PROCESS.q_sample(X, STEP.astype("int32"), X), PROCESS.q_sample(X, STEP, X))


def test_training_takes_other_types_and_whole_rates():
    def first_loss(images, lr):
        paddle.seed(0)
        model = VAE((1, 8, 8), hidden=(8,), latent_dim=3)
        return fit(model, vae_loss, images, steps=2, batch_size=2, lr=lr)["loss"]

    expected = first_loss(IMAGES, 1.0)
    same(first_loss(IMAGES.astype("float64"), 1), expected)
    same(first_loss(X, np.float32(1)), expected)
    same(first_loss(IMAGES.tolist(), 1), expected)


def test_a_training_that_diverges_says_so():
    model = VAE((1, 8, 8), hidden=(8,), latent_dim=3)
    with pytest.raises(TrainingError, match=r"at step \d+.*lr"):
        fit(model, vae_loss, IMAGES, steps=30, batch_size=2, lr=1e6)


def test_one_loss_may_be_drawn_by_its_name():
    assert plots.loss_curves({"kl": np.ones(3)}, "kl").axes


def test_the_judge_takes_tensors_and_float64():
    JUDGE.eval()
    for images in (X, IMAGES.astype("float64"), IMAGES.tolist()):
        same(JUDGE.probabilities(images), JUDGE.probabilities(IMAGES))


PUBLIC = (metrics, plots, interactive)


def test_every_public_function_is_asked():
    """A new function of these modules has to come into the table."""
    asked = {n for call, _ in REFUSED.values() for n in _names(call)}
    for module in PUBLIC:
        functions = {
            name
            for name, value in vars(module).items()
            if not name.startswith("_")
            and isinstance(value, types.FunctionType)
            and value.__module__ in (module.__name__, plots.__name__)
        }
        functions -= {"strip"}  # image_rows in another order
        assert functions <= asked, f"not in the table: {sorted(functions - asked)}"


def _names(call):
    return call.__code__.co_names if isinstance(call, types.FunctionType) else (call.func.__name__,)
