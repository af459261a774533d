"""Debian's headless Chromium, kept in the cache, and what pages look like in it."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shuffledeploy.deploy.board import apt_tree
from shuffledeploy.deploy.board.places import built_once, recipe_hash
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.scratch import scratch_folder

PACKAGE = "chromium-headless-shell"
#: Names under which others install it.
ON_PATH = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
#: Needed by programs that come along with a desktop only.
LEFT_OUT = ("llvm", "mesa")
TIMEOUT_S = 120
LIGHT, DARK = 1, 0
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


@dataclass(frozen=True)
class Browser:
    """A program and the folders of libraries that it needs."""

    program: Path
    libraries: str

    def run(self, page: Path, *options: str) -> str:
        """Open a page and give what the browser prints of it."""
        with tempfile.TemporaryDirectory(prefix="browser.") as home:
            environment = {**os.environ, "HOME": home, "LD_LIBRARY_PATH": self.libraries}
            done = subprocess.run(
                [
                    self.program, "--headless", "--no-sandbox", "--disable-gpu",
                    "--hide-scrollbars", f"--user-data-dir={home}/profile", *options,
                    page.resolve().as_uri(),
                ],
                check=True, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment,
            )  # fmt: skip
        return done.stdout

    def picture(self, page: Path, width: int, height: int, scheme: int = LIGHT) -> Path:
        """Take a picture of a page, beside it."""
        path = page.with_name(f"{page.stem}-{width}-{scheme}.png")
        self.run(
            page, f"--window-size={width},{height}", f"--screenshot={path}",
            f"--blink-settings=preferredColorScheme={scheme}",
        )  # fmt: skip
        return path

    def ask(self, page: Path, expression: str, width: int = 1200) -> Any:
        """Give the value of a JavaScript expression in a page, whose own policy allows no script.

        A copy without that policy is asked: so whatever else could run in the page would run.
        """
        text, found = _POLICY.subn("", page.read_text(encoding="utf-8"))
        assert found == 1
        asks = f"document.body.dataset.answer = JSON.stringify({expression});"
        copy = page.with_name(f"{page.stem}-asked.html")
        copy.write_text(text.replace("</body>", f"<script>{asks}</script></body>"))
        shown = self.run(copy, f"--window-size={width},800", "--dump-dom")
        copy.unlink()
        answer = re.search(r'<body[^>]* data-answer="([^"]*)"', shown)
        assert answer, shown[:500]
        return json.loads(html.unescape(answer[1]))


def ensure_browser() -> Browser:
    """Return the browser on PATH, else Debian's, unpacked once (390 MB).

    Raises
    ------
    Failure
        There is none, and apt gives none.
    """
    for name in ON_PATH:
        if found := shutil.which(name):
            return Browser(Path(found), "")
    folder = built_once(f"browser-{recipe_hash(PACKAGE, Path(__file__))}", _unpack)
    program = folder / "usr" / "lib" / "chromium" / PACKAGE
    libraries = sorted({str(path.parent) for path in folder.rglob("*.so*")})
    return Browser(program, ":".join(libraries))


def _unpack(folder: Path) -> None:
    with scratch_folder("browser-apt-") as scratch:
        tree = apt_tree.open_tree(scratch, apt_tree.host_architecture())
        libraries = [
            name
            for name in apt_tree.dependencies(tree, PACKAGE)
            if name.startswith(("lib", "chromium")) and not any(word in name for word in LEFT_OUT)
        ]
        apt_tree.unpack(tree, [PACKAGE, *libraries], folder)
    shutil.rmtree(folder / "usr" / "share", ignore_errors=True)
    if not (folder / "usr" / "lib" / "chromium" / PACKAGE).is_file():
        raise Failure(f"the package {PACKAGE} of this release has no program of this name")
