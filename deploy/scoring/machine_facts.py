"""What two machines must have in common so that they build and score alike: versions and code."""

from __future__ import annotations

import functools
import hashlib
import platform
from importlib import metadata
from pathlib import Path

import msgspec

import shuffledeploy

#: Packages that make code of a kernel.
PACKAGES = ("apache-tvm", "apache-tvm-ffi")
#: This project's files of which objects and scores are made: below the package, by their endings.
FOLDERS, ENDINGS = ("compiler", "deploy"), frozenset({".py", ".c", ".h", ".csv", ".toml"})


class MachineFacts(msgspec.Struct, frozen=True):
    """What a candidate's object and score depend on beside the candidate.

    Attributes
    ----------
    python : str
        Version of Python, its last part left out.
    packages : dict
        Versions of `PACKAGES`.
    code : str
        Hash of this project's files in `FOLDERS`.
    """

    python: str
    packages: dict[str, str]
    code: str

    def difference_from(self, other: MachineFacts) -> str | None:
        """Say in words what another machine, "it", has other than this one; None where nothing."""
        if other.python != self.python:
            return f"it has Python {other.python}, here it is {self.python}"
        for name, version in self.packages.items():
            if (there := other.packages.get(name)) != version:
                return f"it has {name} {there}, here it is {version}"
        if other.code != self.code:
            return f"its shuffledeploy is of other code ({other.code}, here it is {self.code})"
        return None


@functools.cache
def facts_of_this_machine() -> MachineFacts:
    """Tell the facts of this machine, as they were when it was first asked."""
    package = Path(next(iter(shuffledeploy.__path__)))
    files = sorted(
        path.relative_to(package)
        for folder in FOLDERS
        for path in (package / folder).rglob("*")
        if path.suffix in ENDINGS
    )
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file}\0".encode() + (package / file).read_bytes() + b"\0")
    return MachineFacts(
        ".".join(platform.python_version_tuple()[:2]),
        {name: metadata.version(name) for name in PACKAGES},
        digest.hexdigest()[:12],
    )
