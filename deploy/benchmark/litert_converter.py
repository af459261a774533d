"""The Python in which networks become flatbuffers of LiteRT.

LiteRT's converter asks for an older typing_extensions than TVM does, so it gets an environment of
its own in the cache. PyTorch is not installed again: that environment finds this one's packages
behind its own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import subprocess
import sys
from pathlib import Path

from shuffledeploy.deploy.board.places import built_once, recipe_hash, step
from shuffledeploy.model.cache_folder import cache_folder
from shuffledeploy.model.errors import Failure

CONVERTER = "litert-torch==0.10.0"


def ensure_converter() -> Path:
    """Return the Python that has the converter, installing it on first use (a minute, 1 GB).

    Raises
    ------
    Failure
        It cannot be installed: there is no pip, or no package for this machine (the converter's
        compiled part, litert-converter, has packages for x86_64 alone).
    """
    folder = built_once(_name(), lambda folder: _install(folder, _packages_folder()))
    return folder / "bin" / "python"


def is_converter_installed() -> bool:
    """Whether :func:`ensure_converter` has nothing to install."""
    return (cache_folder() / _name()).is_dir()


def _name() -> str:
    """Name the environment after what it depends on."""
    versions = (platform.python_version(), importlib.metadata.version("torch"))
    return f"litert-converter-{recipe_hash(CONVERTER, *versions, str(_packages_folder()))}"


def _packages_folder() -> Path:
    """Return the folder of this environment's packages, PyTorch among them."""
    found = importlib.util.find_spec("torch")
    if found is None or found.origin is None:
        raise Failure("PyTorch is not installed")
    return Path(found.origin).parent.parent


def _install(folder: Path, behind: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise Failure(f"{sys.executable} has no pip; install it with: python -m ensurepip")
    _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], "make an environment")
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "behind.pth").write_text(f"{behind}\n", encoding="utf-8")
    python = str(folder / "bin" / "python")
    command = [
        sys.executable, "-m", "pip", "--python", python, "install", "-q", "--only-binary=:all:",
        CONVERTER,
    ]  # fmt: skip
    with step(f"pip: {CONVERTER}, the converter of LiteRT"):
        _run(command, f"install {CONVERTER}")


def _run(command: list[str], purpose: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = errors[-1] if errors else f"exit status {done.returncode}"
        raise Failure(f"cannot {purpose}: {reason}")
