"""A private apt: packages of any architecture, without root, from this machine's own sources."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.deploy.board.places import step
from shuffledeploy.model.errors import Failure

# The machine's own hooks would clean or notify its real caches: none of them is run.
_CONFIGURATION = """\
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
APT::Get::Assume-Yes "true";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Dir::State "{root}/state";
Dir::State::status "{root}/status";
Dir::Cache "{root}/cache";
"""
# Unpacking these beside the host's own loader would mix two C libraries in one process.
_NEVER_FOR_HOST = frozenset({"libc6", "libgcc-s1", "gcc-12-base"})


@dataclass(frozen=True)
class AptTree:
    """Package lists of one architecture in a folder of their own."""

    root: Path
    architecture: str

    @property
    def configuration(self) -> Path:
        """Return the configuration file, read after the machine's own."""
        return self.root / "apt.conf"


def host_architecture() -> str:
    """Return Debian's name of this machine's architecture (``amd64``, ``arm64``)."""
    return _run(["dpkg", "--print-architecture"], "ask dpkg for the architecture").strip()


def open_tree(root: Path, architecture: str) -> AptTree:
    """Create an apt tree and fetch its package lists.

    Raises
    ------
    Failure
        When this machine has no apt. A source that does not answer is left out here and shows
        later, as a package that is not found.
    """
    missing = [
        tool for tool in ("apt-get", "apt-cache", "dpkg-deb", "dpkg") if not shutil.which(tool)
    ]
    if missing:
        raise Failure(
            f"cannot build the emulator: {', '.join(missing)} not found; it is put together from"
            " Debian packages, so build it on Debian 12 or in a container of it"
        )
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "status").touch()
    tree = AptTree(root, architecture)
    text = _CONFIGURATION.format(architecture=architecture, root=root)
    if os.geteuid() == 0:
        # apt would drop to a user that cannot write in root's cache folder.
        text += 'APT::Sandbox::User "root";\n'
    tree.configuration.write_text(text)
    with step(f"apt: package lists for {architecture}"):
        subprocess.run(
            ["apt-get", "-c", str(tree.configuration), "-q", "update"],
            check=False, capture_output=True, env=_environment(),
        )  # fmt: skip
    return tree


def unpack(tree: AptTree, packages: Sequence[str], target: Path) -> None:
    """Download packages and unpack them into a folder.

    Raises
    ------
    Failure
        When a package cannot be fetched: says which, and apt's own reason.
    """
    downloads = tree.root / f"packages-{target.name}"
    downloads.mkdir(exist_ok=True)
    target.mkdir(parents=True, exist_ok=True)
    shown = packages[0] if len(packages) == 1 else f"{packages[0]} and {len(packages) - 1} more"
    with step(f"apt: {shown} ({tree.architecture})"):
        _run(
            ["apt-get", "-c", str(tree.configuration), "-q", "download", *packages],
            f"fetch {', '.join(packages)} for {tree.architecture} with apt", folder=downloads,
        )  # fmt: skip
        for archive in sorted(downloads.glob("*.deb")):
            _run(["dpkg-deb", "-x", str(archive), str(target)], f"unpack {archive.name}")
    shutil.rmtree(downloads)


def dependencies(tree: AptTree, package: str) -> list[str]:
    """Return all packages that one needs, leaving out what every host already has."""
    drop = [f"--no-{kind}" for kind in
            ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")]  # fmt: skip
    text = _run(
        ["apt-cache", "-c", str(tree.configuration), "depends", "--recurse", *drop, package],
        f"list what {package} depends on",
    )
    names = re.findall(r"^(\w\S*)$", text, re.MULTILINE)
    return [name for name in names if name != package and name not in _NEVER_FOR_HOST]


def library_path(packaged: Path) -> str:
    """Return the folders of libraries in an unpacked ``usr``, as ``LD_LIBRARY_PATH`` has them."""
    return ":".join(map(str, sorted({path.parent for path in packaged.glob("lib/**/*.so.*")})))


def lacks_libraries(binary: Path, libraries: str = "") -> bool:
    """Whether this machine lacks a library that an unpacked program needs."""
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
    linked = subprocess.run(
        ["ldd", str(binary)], check=False, capture_output=True, text=True, env=environment
    )
    return "not found" in linked.stdout


def python_version(tree: AptTree) -> str:
    """Return this release's Python as ``3.11``."""
    text = _run(
        [
            "apt-cache",
            "-c",
            str(tree.configuration),
            "show",
            "--no-all-versions",
            "python3-minimal",
        ],
        "find this release's Python",
    )
    found = re.search(r"^Version: (\d+\.\d+)", text, re.MULTILINE)
    if not found:
        raise Failure(f"apt lists no python3-minimal for {tree.architecture}")
    return found[1]


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}


def _run(command: Sequence[str], purpose: str, folder: Path | None = None) -> str:
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=folder, env=_environment()
    )
    if done.returncode:
        reasons = [line for line in done.stderr.splitlines() if line.startswith(("E:", "dpkg"))]
        reason = reasons[0] if reasons else f"exit status {done.returncode}"
        raise Failure(f"cannot {purpose}: {reason.removeprefix('E: ')}; is there a network?")
    return done.stdout
