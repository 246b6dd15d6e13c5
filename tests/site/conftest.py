"""The built book in a real browser: where it is, who serves it, and one visit of every page.

The site is `_build/html`, or the folder that the variable GENBOOK_SITE names.
"""

import asyncio
import gzip
import http.server
import os
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
SITE = Path(os.environ.get("GENBOOK_SITE", ROOT / "_build/html")).resolve()
CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
HANGS = 600_000  # milliseconds; no busy machine takes as long
PROBES = (Path(__file__).parent / "probes.js").read_text("utf-8")
STILL = "*, *::before, *::after { transition: none !important; animation: none !important; }"

# A wide screen and a phone, each by day and by night. Neighbours differ in one thing.
STATES = ((1280, "light"), (1280, "dark"), (390, "dark"), (390, "light"))
IN_EVERY_STATE = ("width", "scrollers", "figures")
ONCE = ("images", "formulas", "ids", "buttons", "sizes")
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]

# What is not ours to mend: (axe's rule, part of the element's HTML) -> the reason.
EXCEPTIONS = {}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def site():
    """The folder of the built site."""
    if not (SITE / "index.html").is_file():
        pytest.skip(f"no site in {SITE}: run `make book` first")
    return SITE


@pytest.fixture(scope="session")
def names(site):
    """The pages of the site, as paths from its root, but for those that lead on to another."""
    pages = (
        path
        for path in sorted(site.rglob("*.html"))
        if "_static" not in path.parts and 'http-equiv="Refresh"' not in path.read_text("utf-8")
    )
    return [path.relative_to(site).as_posix() for path in pages]


@pytest.fixture(scope="session")
def address(site):
    """The address at which the site is served, with a slash at its end."""
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Handler, directory=str(site))
    ) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def chromium():
    """The path of the browser; skips where there is none."""
    if CHROMIUM is None:
        pytest.skip("no Chromium or Chrome is installed, so no page can be opened")
    pytest.importorskip("playwright", reason="playwright, which drives the browser, is missing")
    return CHROMIUM


@pytest.fixture(scope="session")
def browser():
    """A browser."""
    path = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def tab(browser):
    """An empty tab, with nothing remembered."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(HANGS)
    yield context.new_page()
    context.close()


class Visits:
    """What was found on the pages: `found[kind]` lists lines that say where and what."""

    def __init__(self):
        self.found = {}
        self.requests = {}  # page -> the files that it asks for when it opens
        self.copied = {}  # page -> what its copy buttons put into the clipboard

    def note(self, kind, page, state, what):
        """Remember a finding; `state` is (width, scheme)."""
        self.found.setdefault(kind, []).append(f"{page} at {state[0]} px, {state[1]}: {what}")

    def of(self, *kinds):
        """The findings of these kinds, one a line."""
        return "\n".join(line for kind in kinds for line in self.found.get(kind, ()))


@pytest.fixture(scope="session")
def visits(site, address, names):
    """Every page opened once, looked at in every state, by three tabs at a time."""
    path = chromium()
    with ThreadPoolExecutor(1) as thread:  # the loop of the other browser is in this one
        return thread.submit(asyncio.run, visit_all(path, address, names)).result()


async def visit_all(path, address, names):
    """Visit the pages."""
    from playwright.async_api import async_playwright

    visits, tabs, clipboard = Visits(), asyncio.Semaphore(3), asyncio.Lock()

    async def visit(browser, name):
        async with tabs:
            context = await browser.new_context(permissions=["clipboard-read", "clipboard-write"])
            context.set_default_timeout(HANGS)
            try:
                await look_at(await context.new_page(), address, name, visits, clipboard)
            finally:
                await context.close()

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        await asyncio.gather(*(visit(browser, name) for name in names))
        await browser.close()
    return visits


async def look_at(tab, address, name, visits, clipboard):
    """Open a page and note all that is wrong with it."""
    from playwright.async_api import TimeoutError

    state = STATES[0]

    async def show(new):
        nonlocal state
        state = new
        await tab.set_viewport_size({"width": state[0], "height": 900})
        await tab.emulate_media(color_scheme=state[1])

    async def follow():  # as the theme does, a moment later
        await tab.wait_for_function(f"document.documentElement.dataset.theme === '{state[1]}'")

    async def probe(*kinds):
        for kind in kinds:
            for what in await tab.evaluate(f"probes.{kind}()"):
                visits.note(kind, name, state, what)

    def on_request(request):
        if request.url.startswith(address):
            asked.append(request.url)
        elif not request.url.startswith(("data:", "blob:")):
            visits.note("foreign", name, state, request.url)

    def on_response(response):
        if response.status >= 400:
            visits.note("missing", name, state, response.url)

    def on_console(message):
        if message.type == "error":
            visits.note("errors", name, state, message.text)

    asked = []
    tab.on("request", on_request)
    tab.on("response", on_response)
    tab.on("requestfailed", lambda request: visits.note("missing", name, state, request.url))
    tab.on("console", on_console)
    tab.on("pageerror", lambda error: visits.note("errors", name, state, str(error)))

    await show(state)
    await tab.goto(address + name)
    await tab.evaluate("window.MathJax?.startup?.promise")
    await tab.evaluate("document.fonts.ready")
    visits.requests[name] = sorted({urlsplit(url).path for url in asked})

    await tab.add_style_tag(content=STILL)
    await tab.evaluate(f"() => {{ {PROBES}; window.probes = probes; }}")
    await tab.evaluate("probes.open()")
    await probe(*ONCE)
    async with clipboard:
        visits.copied[name] = await tab.evaluate("probes.copies()")
    for each in STATES:
        await show(each)
        await follow()
        try:  # the theme makes what scrolls reachable a moment later
            await tab.wait_for_function("!probes.scrollers().length", timeout=5000)
        except TimeoutError:
            pass  # the probe says what is not
        await probe(*IN_EVERY_STATE)

    await tab.evaluate("probes.emptyFormulas(), probes.thinTokens()")
    await tab.evaluate(axe())
    # Colours of code do not depend on the width, nor anything but colours on the scheme.
    for each, rules, leave_out in (
        (STATES[0], WCAG, []),
        (STATES[1], ["color-contrast"], []),
        (STATES[2], ["color-contrast"], ["pre"]),
        (STATES[3], WCAG, ["pre span"]),
    ):
        await show(each)
        await follow()
        for rule, html, why in await tab.evaluate(AXE_RUN, [rules, leave_out]):
            if not any(rule == known and part in html for known, part in EXCEPTIONS):
                visits.note("axe", name, state, f"{rule}: {html} {why}")


AXE_RUN = """async ([rules, leaveOut]) => {
  const result = await axe.run({ include: ["html"], exclude: leaveOut.map((e) => [e]) },
    { runOnly: rules, resultTypes: ["violations"], preload: false,
      selectors: false });
  return result.violations.flatMap((violation) => violation.nodes.map((node) =>
    [violation.id, node.html.slice(0, 160), node.failureSummary.replace(/\\s+/g, " ")]));
}"""


@cache
def axe():
    """The source of axe-core."""
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")


@pytest.fixture(scope="session")
def transferred(site):
    """A function: the bytes that a file of the site is on the wire, gzipped where that helps."""

    @cache
    def size(path):
        file = site / unquote(path).lstrip("/")
        content = file.read_bytes()
        packed = file.suffix in (".png", ".webp", ".jpg", ".woff", ".woff2", ".gz")
        return len(content if packed else gzip.compress(content, 6))

    return size
