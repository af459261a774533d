"""Python packages for the board: wheels of its architecture, unpacked where its Python looks."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

from shuffledeploy.deploy.board.places import step
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.scratch import scratch_folder

# All three: a tvm-ffi built for 2_27 or 2014 would else give way to an older one.
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")


def unpack_wheels(
    requirements: Sequence[str], python: str, site: Path, *, what: str,
    left_out: re.Pattern[str] | None = None,
) -> None:  # fmt: skip
    """Download wheels for aarch64, without what they depend on, and unpack them into a folder.

    Parameters
    ----------
    requirements : sequence of str
        As pip takes them.
    python : str
        The board's Python as ``3.11``.
    site : Path
        Where they go.
    what : str
        For people.
    left_out : re.Pattern, optional
        Names of files that are not unpacked.

    Raises
    ------
    Failure
        When pip is missing or cannot fetch one.
    """
    if importlib.util.find_spec("pip") is None:
        raise Failure(f"{sys.executable} has no pip; install it with: python -m ensurepip")
    with scratch_folder("shuffledeploy-pip-") as scratch:
        command = [
            sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:",
            *(f"--platform={name}" for name in PLATFORMS), f"--python-version={python}",
            "--implementation=cp", "-d", str(scratch), *requirements,
        ]  # fmt: skip
        with step(f"pip: {what} for aarch64, Python {python}"):
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
                reason = errors[-1] if errors else f"exit status {done.returncode}"
                raise Failure(f"cannot fetch the board's Python packages with pip: {reason}")
            for wheel in sorted(scratch.glob("*.whl")):
                with zipfile.ZipFile(wheel) as archive:
                    names = archive.namelist()
                    kept = [name for name in names if not (left_out and left_out.search(name))]
                    archive.extractall(site, kept)
