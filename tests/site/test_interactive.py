"""The figures that a reader can move: the page computes what Paddle computes, by whatever hand."""

import base64
import json
import re
from html import unescape
from pathlib import Path
from time import monotonic, sleep

import numpy as np
import paddle
import pytest

from genbook.data import load
from genbook.figures.interactive import explorer
from genbook.training import trainer
from genbook.training.recipes.vae import train_plane_autoencoder, train_plane_vae

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "book/_ext/bookbuild/interactive/static/interactive.js"
DECODE = """async ([address, panel, codes]) => {
  const { load, decoder } = window.genbookInteractive;
  const decode = decoder(await load(address, panel.key), panel.shapes);
  return codes.map((code) => [...decode(code)]);
}"""


def element(html):
    """The settings of the figure in this HTML, and the addresses of its files."""
    attributes = dict(
        re.findall(r'([\w-]+)="([^"]*)"', re.search(r'<div class="interactive"[^>]*>', html)[0])
    )
    return json.loads(unescape(attributes["data-settings"])), attributes


def places(panel, n=500):
    """Codes anywhere in the square of a panel, and at its corners."""
    low, high = np.array(panel["low"]), np.array(panel["high"])
    anywhere = np.random.default_rng(0).uniform(low, high, (n, 2))
    corners = [[x, y] for x in (low[0], high[0]) for y in (low[1], high[1])]
    return np.concatenate([anywhere, corners]).astype("float32")


def farthest(tab, address, panel, model):
    """The greatest difference of a pixel between the page and Paddle."""
    codes = places(panel)
    page = np.array(tab.evaluate(DECODE, [address, panel, codes.tolist()]))
    exact = model.decode(paddle.to_tensor(codes)).numpy().reshape(len(codes), -1)
    assert page.shape == exact.shape
    assert np.ptp(exact) > 0.5  # there is something to compare
    return np.abs(page - exact).max()


def test_the_page_decodes_as_paddle_does(tab):
    digits = load("digits")
    model, _ = train_plane_vae(digits, steps=150)
    codes = {"VAE": model.encode(paddle.to_tensor(digits.images))[0].numpy()}
    settings, files = element(
        explorer({"VAE": model}, codes, digits.labels, digits.classes)._repr_html_()
    )
    tab.add_script_tag(path=SCRIPT)
    assert farthest(tab, files["data-weights-0"], settings["panels"][0], model) <= 1e-3


def test_the_site_decodes_as_the_trained_models_do(site, tab, address, monkeypatch):
    page = "book/latent-space.html"
    settings, files = element((site / page).read_text("utf-8"))
    monkeypatch.setenv("GENBOOK_RUNS", str(site.parent / "runs"))
    monkeypatch.setattr(
        trainer.Run,
        "train",
        lambda *_: pytest.skip("the build keeps no training of this code; run `make book` first"),
    )
    tab.goto(address + page)
    for i, recipe in enumerate((train_plane_autoencoder, train_plane_vae)):
        model, _ = recipe(load("digits"))
        weights = address + "book/" + files[f"data-weights-{i}"]
        assert farthest(tab, weights, settings["panels"][i], model) <= 1e-3


def image(panel):
    """The pixels that a panel shows."""
    return panel.locator(".interactive-image").evaluate(
        "(c) => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]"
    )


def wait_until_another_image_than(before, panel):
    """The weights take a moment to load."""
    end = monotonic() + 600
    while image(panel) == before:
        assert monotonic() < end, "the image stays as it was"
        sleep(0.1)


@pytest.fixture(params=["http", "file"])
def figure(request, site, tab):
    """The planes of codes, served or opened as a file."""
    where = site.as_uri() + "/" if request.param == "file" else request.getfixturevalue("address")
    tab.goto(where + "book/latent-space.html")
    return tab.locator(".interactive-explorer")


def test_keys_and_mouse_move_the_point(tab, figure):
    panel = figure.locator(".interactive-panel").nth(1)
    handle, before = panel.get_by_role("slider"), image(panel)
    at = handle.get_attribute("aria-valuetext")
    handle.focus()
    for _ in range(20):
        tab.keyboard.press("Shift+ArrowUp")
    wait_until_another_image_than(before, panel)
    assert handle.get_attribute("aria-valuetext") != at
    top = json.loads(figure.get_attribute("data-settings"))["panels"][1]["high"][1]
    assert f"{top:.2f})" in handle.get_attribute("aria-valuetext")  # and no further
    tab.keyboard.press("Home")
    assert handle.get_attribute("aria-valuetext") == at
    # The first picture was Paddle's, in whole grey levels.
    assert np.abs(np.array(image(panel)) - np.array(before)).max() <= 1

    plane = panel.locator(".interactive-plane")
    plane.scroll_into_view_if_needed()
    box = plane.bounding_box()
    tab.mouse.move(box["x"] + 30, box["y"] + 30)
    tab.mouse.down()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2, steps=5)
    tab.mouse.up()
    ring = handle.bounding_box()
    assert ring["x"] + ring["width"] / 2 == pytest.approx(box["x"] + box["width"] / 2, abs=2)
    tab.mouse.move(box["x"] + 30, box["y"] + 30)  # let go, it stays
    assert handle.bounding_box() == ring


def test_a_finger_moves_the_point(browser, site, address):
    context = browser.new_context(has_touch=True, viewport={"width": 390, "height": 800})
    tab = context.new_page()
    tab.goto(address + "book/latent-space.html")
    panel = tab.locator(".interactive-panel").first
    before = panel.get_by_role("slider").get_attribute("aria-valuetext")
    panel.locator(".interactive-plane").scroll_into_view_if_needed()
    box = panel.locator(".interactive-plane").bounding_box()
    tab.touchscreen.tap(box["x"] + 20, box["y"] + 20)
    assert panel.get_by_role("slider").get_attribute("aria-valuetext") != before
    context.close()


def test_weights_are_fetched_only_by_those_who_use_them(tab, address, site):
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(address + "book/latent-space.html", wait_until="networkidle")
    assert not [url for url in asked if "_static/figures/" in url]
    weights = [*(site / "_static/figures").glob("*.js")]
    assert len(weights) >= 2
    assert sum(path.stat().st_size for path in weights) < 1.2e6


def test_the_slider_goes_from_noise_to_digit(tab, address):
    tab.goto(address + "book/diffusion-reverse.html")
    figure = tab.locator(".interactive-timeline")
    slider = figure.get_by_role("slider")
    steps = json.loads(figure.get_attribute("data-settings"))["steps"]
    slider.focus()
    seen = {}
    for key, t in (("Home", 1000), ("ArrowRight", steps[1]), ("End", 0)):
        tab.keyboard.press(key)
        assert slider.get_attribute("aria-valuetext").startswith(f"t = {t},")
        frame = figure.locator(".interactive-frame").first
        seen[key] = frame.evaluate("(e) => getComputedStyle(e).backgroundPosition")
    assert len(set(seen.values())) == 3
    assert "ᾱ = 1.000" in slider.get_attribute("aria-valuetext")


def test_playing_stops_at_the_end_and_is_not_offered_to_those_who_want_stillness(tab, address):
    tab.goto(address + "book/diffusion-reverse.html")
    button, slider = tab.locator(".interactive-play"), tab.locator(".interactive input")
    slider.focus()
    tab.keyboard.press("End")
    for _ in range(3):
        tab.keyboard.press("ArrowLeft")
    button.click()
    assert button.get_attribute("aria-label") == "Pause"
    tab.wait_for_function("document.querySelector('.interactive-play').ariaLabel === 'Play'")
    assert slider.input_value() == slider.get_attribute("max")
    tab.emulate_media(reduced_motion="reduce")
    tab.reload()
    assert not tab.locator(".interactive-play").is_visible()


def test_the_strip_holds_what_the_steps_say(site, tab, address):
    """Its last frames are clean images, its first ones noise."""
    from PIL import Image

    settings, files = element((site / "book/diffusion-reverse.html").read_text("utf-8"))
    strip = np.asarray(Image.open(site / "book" / files["data-strip"]))
    frames = strip.reshape(2 * settings["images"], 16, len(settings["steps"]), 16)
    states = frames[: settings["images"]].transpose(2, 0, 1, 3)  # [T, N, H, W]
    grey = ((states > 30) & (states < 225)).mean(axis=(1, 2, 3))
    assert grey[0] > 0.5 > 0.3 > grey[-1]
    assert (frames[settings["images"] :, :, -1] == frames[: settings["images"], :, -1]).all()


@pytest.mark.parametrize("page", ["latent-space", "diffusion-reverse"])
def test_without_scripts_the_figures_that_do_not_move_are_there(browser, address, site, page):
    context = browser.new_context(java_script_enabled=False)
    tab = context.new_page()
    tab.goto(f"{address}book/{page}.html")
    assert not tab.locator(".interactive").is_visible()
    assert not tab.locator(".interactive-caption").is_visible()
    assert tab.locator("figure img").count() > 3
    context.close()


def test_the_output_of_the_cell_holds_everything(site):
    """Where nothing makes files of its data, as in a notebook, they are in the output itself."""
    digits = load("digits")
    model, _ = train_plane_vae(digits, steps=1)
    codes = {"VAE": model.encode(paddle.to_tensor(digits.images))[0].numpy()}
    settings, files = element(
        explorer({"VAE": model}, codes, digits.labels, digits.classes)._repr_html_()
    )
    script = base64.b64decode(files["data-weights-0"].partition(",")[2]).decode()
    assert settings["panels"][0]["key"] in script
    within = np.frombuffer(base64.b64decode(settings["panels"][0]["codes"]), "<u2") / 65535
    low, high = (np.array(settings["panels"][0][k]) for k in ("low", "high"))
    assert within.reshape(-1, 2) * (high - low) + low == pytest.approx(codes["VAE"], abs=1e-3)
