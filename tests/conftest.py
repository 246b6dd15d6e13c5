"""A miniature of this book: its real configuration and extension, with tiny pages."""

import atexit
import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from functools import cache, partial
from pathlib import Path

import paddle
import pytest

# Paddle would report a crash where pytest hides it; pytest itself shows the lines that led to it.
paddle.disable_signal_handler()

# A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
ANY_WIDTH = "    suppress_warnings: [bookbuild.width]\n"
FRONT = "---\nfile_format: mystnb\nkernelspec: {name: python3}\n---\n"


GATED = ("-n", "-W", "--keep-going")
HANGS = 900  # seconds; no busy machine takes as long for a miniature


class BuildServer:
    """The process that builds books without importing everything anew; see build_server.py."""

    def __init__(self):
        self._process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("build_server.py")],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        atexit.register(self._process.communicate)  # it ends with its input

    def build(self, **job) -> int:
        """The exit code of a build."""
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


@cache
def build_server() -> BuildServer:
    """The server that all tests share."""
    return BuildServer()


@cache
def fonts() -> Path:
    """A folder with matplotlib's list of the fonts here, which a first build would make."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    subprocess.run(
        [sys.executable, "-c", "import matplotlib.font_manager"],
        env={**os.environ, "MPLCONFIGDIR": folder.name},
        check=True,
        capture_output=True,
    )
    return Path(folder.name)


class MiniBook:
    """A book in a folder of its own, whose copy of `genbook` can be edited freely."""

    def __init__(self, root: Path):
        self.root = root
        (root / "book").mkdir(parents=True)
        config = (ROOT / "_config.yml").read_text("utf-8")
        # Code that names a test's folder is long.
        self.write("_config.yml", config.replace("  config:\n", f"  config:\n{ANY_WIDTH}", 1))
        for folder in ("genbook", "book/_ext", "book/_static", "book/diagrams"):
            shutil.copytree(
                ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__")
            )
        self.env = {**os.environ, "PYTHONPATH": str(root), "HOME": str(root)}
        self.env.pop("GENBOOK_DATA", None)
        self.write("requirements.txt", "some-package==1")
        self.write("book/references.bib", "")
        self.write("book/index.md", "# A book\n")
        self.write("_toc.yml", "format: jb-book\nroot: book/index\n")

    def write(self, path: str, text: str) -> None:
        """Put `text` into a file of the book."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(text, encoding="utf-8")

    def page(self, name: str, body: str) -> None:
        """Add a chapter, or replace its text: `body` without front matter."""
        self.write(f"book/{name}.md", f"{FRONT}# Page {name}\n\n{body}\n")
        pages = sorted(path.stem for path in (self.root / "book").glob("*.md"))
        chapters = "".join(f"  - file: book/{page}\n" for page in pages if page != "index")
        self.write(
            "_toc.yml",
            "format: jb-book\nroot: book/index\n"
            f"defaults: {{numbered: true}}\nchapters:\n{chapters}",
        )

    def start(self, *options: str) -> subprocess.Popen:
        """Start a build, gated as `make book` gates it, in a process like any other."""
        # A shell has its background jobs ignore Ctrl-C, and the tests may be run by one.
        prelude = (
            "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
            "from jupyter_book.cli.main import main; main()"
        )
        return subprocess.Popen(
            [sys.executable, "-c", prelude, "build", ".", *(options or GATED)],
            cwd=self.root,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def build_apart(self, *options: str) -> "Build":
        """Build the book in a new process: with its own locale, encoding and order of hashes."""
        process = self.start(*options)
        out, err = process.communicate(timeout=HANGS)
        return Build(process.returncode, out, err)

    def build(self, *options: str) -> "Build":
        """Build the book in a process of the build server, which takes a fraction of the time."""
        shutil.copytree(fonts(), self.root / "_build/matplotlib", dirs_exist_ok=True)
        out, err = (self.said(stream) for stream in ("out", "err"))
        code = build_server().build(
            folder=str(self.root),
            options=options or GATED,
            environment=self.env,
            out=str(out),
            err=str(err),
        )
        return Build(code, *(path.read_text("utf-8", "replace") for path in (out, err)))

    def said(self, stream: str) -> Path:
        """The file that `build` writes its "out" or its "err" to; a page may look into it."""
        return self.root.with_name(f"{self.root.name}.{stream}")

    def html(self, name: str) -> str:
        """The rendered page."""
        return (self.root / f"_build/html/book/{name}.html").read_text(encoding="utf-8")


class Build:
    """How a build ended."""

    def __init__(self, code: int, out: str, err: str):
        self.code, self.out, self.err = code, out, err

    def ran(self) -> set[str]:
        """The pages that were executed, once the build is known to be green."""
        assert self.code == 0, self.out + self.err
        return set(re.findall(r"^book/(\S+) +[\d.]+ s$", self.out, re.MULTILINE))


@pytest.fixture(scope="session")
def new_book():
    """A function that makes an empty miniature book in a folder yet to be."""
    return MiniBook


@pytest.fixture
def book(tmp_path):
    """An empty miniature book, in a folder whose name has a space and Chinese characters."""
    return MiniBook(tmp_path / "a book 一本书")


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a word."""

    def log_message(self, *arguments):
        pass


@pytest.fixture(scope="session")
def show_page():
    """A function that shows a page of a site in a browser and returns the page's final HTML."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium or Chrome is installed, so no page can be opened")

    def show(site, path, folder):
        handler = partial(QuietHandler, directory=str(site))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                return subprocess.run(
                    [
                        chromium,
                        "--headless",
                        "--no-sandbox",
                        "--disable-gpu",
                        "--no-first-run",
                        "--disable-background-networking",
                        "--disable-component-update",
                        "--disable-sync",
                        f"--user-data-dir={folder}",
                        "--virtual-time-budget=20000",
                        "--dump-dom",
                        f"http://127.0.0.1:{server.server_port}/{path}",
                    ],
                    check=True,
                    capture_output=True,
                    text=True,
                    timeout=HANGS,
                ).stdout
            finally:
                server.shutdown()

    return show
