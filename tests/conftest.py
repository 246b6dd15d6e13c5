"""A miniature of this book: its real configuration and extension, with tiny pages."""

import http.server
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

# A shell that starts the tests in the background has them ignore Ctrl-C, which some of them send.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent
FRONT = "---\nfile_format: mystnb\nkernelspec: {name: python3}\n---\n"


class MiniBook:
    """A book in a folder of its own, whose copy of `genbook` can be edited freely."""

    def __init__(self, root: Path):
        self.root = root
        (root / "book").mkdir(parents=True)
        shutil.copy(ROOT / "_config.yml", root)
        for folder in ("genbook", "book/_ext", "book/_static"):
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
        """Start a build, gated as `make book` gates it."""
        # A shell has its background jobs ignore Ctrl-C, and the tests may be run by one.
        listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
        run = "from jupyter_book.cli.main import main; main()"
        command = [
            sys.executable,
            "-c",
            f"{listen}; {run}",
            "build",
            ".",
            *(options or ("-n", "-W", "--keep-going")),
        ]
        return subprocess.Popen(
            command,
            cwd=self.root,
            env=self.env,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def build(self, *options: str) -> "Build":
        """Build the book."""
        process = self.start(*options)
        out, err = process.communicate(timeout=600)
        return Build(process.returncode, out, err)

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
                    timeout=120,
                ).stdout
            finally:
                server.shutdown()

    return show
