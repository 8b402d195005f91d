"""The built book, a local server for it, and a browser that is kept off the network."""

import fcntl
import functools
import http.server
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Route, sync_playwright

ROOT = Path(__file__).parents[2]
HTML = ROOT / "_build" / "html"
INDEX = HTML / "index.html"
SOURCES = ("_config.yml", "_toc.yml", "book", "chapters", "src")
BUILD = ["build", ".", "-W", "-n", "--keep-going"]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]


def is_stale() -> bool:
    """Whether the book is absent, or older than one of the files it is made from."""
    if not INDEX.exists():
        return True
    made = INDEX.stat().st_mtime
    passing = {"__pycache__", ".ipynb_checkpoints"}
    return any(
        file.is_file() and file.stat().st_mtime > made and passing.isdisjoint(file.parts)
        for name in SOURCES
        for file in (ROOT / name, *(ROOT / name).rglob("*"))
    )


@pytest.fixture(scope="session")
def book() -> Path:
    """Folder of the built book, built anew if it is stale; two test processes build it once."""
    lock = ROOT / "_build" / ".lock"
    lock.parent.mkdir(exist_ok=True)
    with lock.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        if is_stale():
            command = [str(Path(sys.executable).parent / "jupyter-book"), *BUILD]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            if done.returncode:
                said = (done.stdout + done.stderr)[-3000:]
                pytest.fail(f"jupyter-book {' '.join(BUILD)} failed:\n{said}", pytrace=False)
            INDEX.touch()
    return HTML


@pytest.fixture(scope="session")
def server(book: Path) -> Iterator[str]:
    """Address of a local server that shows the book."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing for every file."""

    handler = functools.partial(Quiet, directory=str(book))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()
        thread.join()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium, the one of the system."""
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        pytest.fail(f"the book's tests need {' or '.join(names)} on the PATH", pytrace=False)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield started
        started.close()


class Visitor:
    """A page of the browser that refuses what is not local and remembers what went wrong."""

    def __init__(self, context: BrowserContext):
        self.outside: list[str] = []
        self.errors: list[str] = []
        self.page: Page = context.new_page()
        context.route("**/*", self._answer)
        self.page.on("console", lambda said: said.type == "error" and self.errors.append(said.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _answer(self, route: Route) -> None:
        address = route.request.url
        if address.startswith(("http://127.0.0.1:", "file:", "data:", "blob:")):
            route.continue_()
        else:
            self.outside.append(address)
            route.abort()

    def open(self, address: str) -> Page:
        """Open a page and wait until its formulas are set."""
        self.page.goto(address, wait_until="load")
        self.page.evaluate("() => window.MathJax?.startup?.promise")
        return self.page


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """A fresh visitor: nothing remembered from another test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    yield Visitor(context)
    context.close()
