"""Figures that a reader can move: what a page needs for them, as the output of a cell.

The output is an empty, hidden element whose attributes hold all data, the larger ones as `data:`
addresses. When the site is built, `bookbuild.interactive` makes files of those and adds the
script that draws the figure; a reader without scripts sees the figures that do not move.
"""

import base64
import hashlib
import html
import io
import json

import numpy as np
import paddle
from PIL import Image


class Interactive:
    """The output of a cell: an element that the site's script fills.

    kind: which figure it is. settings: what JSON can hold. files: names and `data:` addresses.
    """

    def __init__(self, kind, settings, files):
        self.kind, self.settings, self.files = kind, settings, files

    def __repr__(self):
        return f"an interactive figure ({self.kind})"

    def _repr_html_(self):
        attributes = {"data-kind": self.kind, "data-settings": json.dumps(self.settings)}
        attributes |= {f"data-{name}": address for name, address in self.files.items()}
        written = " ".join(f'{k}="{html.escape(v)}"' for k, v in attributes.items())
        return f'<div class="interactive" {written} hidden></div>'


def explorer(models, codes, labels, classes):
    """Planes of codes, side by side, in each of which a reader moves a point that is decoded.

    models: a dict of title -> VAE with a code of two dimensions. codes: a dict of title -> array
    [N, 2], which show as marks; the point begins at the first. labels: [N]. classes: their names.
    Raises ValueError for codes that are not [N, 2], of other models, or of another number than
    labels.
    """
    if models.keys() != codes.keys():
        raise ValueError(f"models {list(models)} and codes {list(codes)} differ")
    for title, of_model in codes.items():
        if np.shape(of_model) != (len(labels), 2):
            expected = [len(labels), 2]
            raise ValueError(f"codes of {title!r} are {list(np.shape(of_model))}, not {expected}")
    panels, files = [], {}
    for i, (title, model) in enumerate(models.items()):
        low, high = _square(codes[title])
        layers = _without_dead_units(_layers(model.decoder), low, high)
        image = model.decode(paddle.to_tensor(codes[title][:1])).numpy()
        within = (codes[title] - low) / (high - low)  # 0 to 1 in both coordinates
        address, key = _script(_packed(layers))
        files[f"weights-{i}"] = address
        panels.append(
            {
                "title": title,
                "low": low.tolist(),
                "high": high.tolist(),
                "start": codes[title][0].tolist(),
                "codes": _base64(np.round(within * 65535).astype("<u2")),
                "image": _base64(np.round(image * 255).astype("u1")),
                "side": image.shape[-1],
                "shapes": [list(weight.shape) for weight, _ in layers],
                "key": key,
            }
        )
    settings = {"panels": panels, "labels": np.asarray(labels).tolist(), "classes": list(classes)}
    return Interactive("explorer", settings, files)


def timeline(diffusion, model, states):
    """The way from noise to images, along which a reader moves.

    diffusion: a GaussianDiffusion. model: predicts for the images at hand. states: a dict of the
    number of steps that are left -> x_t [N, 1, H, W] in [-1, 1], among them 0. A second row shows
    the estimates of x_0 that the model makes from these states. Raises ValueError for states of
    other steps, and of shapes that differ.
    """
    if 0 not in states or not all(0 <= step <= diffusion.timesteps for step in states):
        raise ValueError(f"the steps must be from 0 to {diffusion.timesteps}, among them 0")
    if len({tuple(x.shape) for x in states.values()}) != 1:
        raise ValueError("the states must have one shape")
    steps = sorted(states, reverse=True)
    estimates = [_estimate(diffusion, model, states[step], step) for step in steps]
    rows = [
        np.stack([np.asarray(x) for x in row], axis=1)  # [N, T, 1, H, W]
        for row in ([states[step] for step in steps], estimates)
    ]
    frames = np.concatenate(rows)[:, :, 0]  # [2 N, T, H, W]
    strip = np.block([list(row) for row in (np.clip(frames, -1, 1) + 1) / 2])
    settings = {
        "steps": steps,
        "images": len(rows[0]),
        "alphas_cumprod": [1.0, *_rounded(diffusion.alphas_cumprod)],
        "betas": _rounded(diffusion.betas),
    }
    return Interactive("timeline", settings, {"strip": _png(strip)})


def _estimate(diffusion, model, x_t, step):
    """The model's x_0 for the state after `step` steps; nothing is to be estimated after none."""
    if step == 0:
        return x_t
    with paddle.no_grad():
        t = paddle.full([len(x_t)], step - 1, dtype="int64")  # the code counts from 0
        return diffusion.predict_start(model, x_t, t)


def _square(codes, margin=0.04):
    """The corners of the smallest square around all codes, and a little more: [2], [2]."""
    low, high = codes.min(axis=0), codes.max(axis=0)
    half = (0.5 + margin) * (high - low).max()
    return (low + high) / 2 - half, (low + high) / 2 + half


def _layers(decoder):
    """Weights [in, out] and biases [out] of the linear layers, between which are ReLUs."""
    return [
        (layer.weight.numpy(), layer.bias.numpy())
        for layer in decoder
        if isinstance(layer, paddle.nn.Linear)
    ]


def _without_dead_units(layers, low, high, points=128):
    """The same function on the square from `low` to `high`, less the units that never fire there.

    Whether a unit fires is asked at points^2 places.
    """
    sides = np.linspace(low, high, points, dtype=np.float32)
    h = np.stack(np.meshgrid(*sides.T), axis=-1).reshape(-1, 2)
    kept = list(layers)
    for i in range(len(kept) - 1):
        weight, bias = kept[i]
        h = np.maximum(h @ weight + bias, 0)
        fires = (h > 0).any(axis=0)
        h = h[:, fires]
        kept[i] = weight[:, fires], bias[fires]
        kept[i + 1] = kept[i + 1][0][fires], kept[i + 1][1]
    return kept


def _packed(layers):
    """The layers as bytes, the weights in 16 bits: those of a unit are whole multiples of a scale.

    First scales and biases of each layer, float32, then the weights of each, int16. A float16
    would have the same size, and is four times as far off.
    """
    small, large = [], []
    for weight, bias in layers:
        scale = (np.abs(weight).max(axis=0) / 32767).astype("<f4")
        small += [scale, bias.astype("<f4")]
        large.append(np.round(weight / np.where(scale > 0, scale, 1)).astype("<i2"))
    return b"".join(array.tobytes() for array in [*small, *large])


def _script(data):
    """Bytes as the address of a script that hands them over, and the key under which it does.

    A page that is opened as a file may not read other files, but may run them.
    """
    key = hashlib.sha256(data).hexdigest()[:16]
    code = f'(window.genbookFiles ??= {{}})["{key}"] = "{_base64(data)}";\n'
    return f"data:text/javascript;base64,{_base64(code.encode())}", key


def _png(image):
    """An array [H, W] in [0, 1] as the address of a grey PNG."""
    file = io.BytesIO()
    Image.fromarray(np.round(image * 255).astype(np.uint8)).save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{_base64(file.getvalue())}"


def _base64(data):
    data = data.tobytes() if isinstance(data, np.ndarray) else data
    return base64.b64encode(data).decode("ascii")


def _rounded(numbers):
    """Numbers with the four digits that a figure can show."""
    return [float(f"{number:.4g}") for number in numbers]
