"""Fashion-MNIST: fetched from the Debian package that ships it, read from its IDX files.

Xiao, Rasul, Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning
Algorithms", arXiv 1708.07747 (MIT licence): 60,000 training and 10,000 test images, 28x28, grey.
"""

from __future__ import annotations

import gzip
import os
import shutil
import struct
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shuffledeploy.model.cache_folder import cache_folder
from shuffledeploy.model.errors import Failure, UsageError
from shuffledeploy.model.scratch import scratch_folder

#: Name of the network that is trained on it.
FASHION = "shufflenet-fashion"
PACKAGE = "dataset-fashion-mnist"
#: Where the package keeps its files, below the root it is unpacked to.
INSTALLED_AT = Path("usr/share/datasets/fashion-mnist")
SYSTEM_ROOT = Path("/")

CLASSES = (
    "T-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
SIDE = 28

_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}
_GZIP_MAGIC = b"\x1f\x8b"
_IDX_UINT8 = 0x08
#: A mirror that does not answer must not hold a test or a command for minutes.
_APT_OPTIONS = ("-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20")
_APT_TIMEOUT_S = 300


@dataclass(frozen=True)
class Split:
    """Images and their labels.

    Attributes
    ----------
    images : numpy.ndarray
        uint8, ``(count, 28, 28)``; 0 is the background.
    labels : numpy.ndarray
        uint8, ``(count,)``; indices of :data:`CLASSES`.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """Read an IDX file of bytes, compressed or not.

    Parameters
    ----------
    path : Path
        Big-endian: two zero bytes, the type (8: bytes), the number of dimensions, each of them as
        32 bits, then the data. Gzip is told by its first bytes, not by the name.

    Returns
    -------
    numpy.ndarray
        uint8, read-only.

    Raises
    ------
    UsageError
        The file is missing, damaged, of another type, or shorter or longer than it says.
    """
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP_MAGIC):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{path} cannot be read: {error}") from None
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != _IDX_UINT8 or data[3] == 0:
        raise UsageError(f"{path} is no IDX file of bytes: it starts with {data[:4].hex(' ')!r}")
    header = 4 + 4 * data[3]
    if len(data) < header:
        raise UsageError(f"{path} is cut short in its header")
    shape = struct.unpack(f">{data[3]}I", data[4:header])
    # Python's integers: a header that lies may well overflow those of numpy.
    size = 1
    for extent in shape:
        size *= extent
    if len(data) - header != size:
        raise UsageError(f"{path} says {size} bytes of data and holds {len(data) - header}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_split(name: str, folder: Path) -> Split:
    """Read the training or the test images.

    Parameters
    ----------
    name : str
        ``"train"`` or ``"test"``.
    folder : Path
        What :func:`fetch` returns.

    Returns
    -------
    Split
        Images and labels, equally many.

    Raises
    ------
    UsageError
        No such split, or files that are damaged or do not belong together.
    """
    if name not in _FILES:
        raise UsageError(f"Fashion-MNIST has the splits {' and '.join(_FILES)}, not {name!r}")
    images, labels = (read_idx(folder / file) for file in _FILES[name])
    if images.ndim != 3 or images.shape[1:] != (SIDE, SIDE):
        raise UsageError(f"{folder / _FILES[name][0]} holds {images.shape}, not N images of 28x28")
    if labels.shape != images.shape[:1] or (labels.size and labels.max() >= len(CLASSES)):
        raise UsageError(f"{folder / _FILES[name][1]} holds no label from 0 to 9 for each image")
    return Split(images, labels)


def is_complete(folder: Path) -> bool:
    """Tell whether the folder has all four files."""
    return all((folder / file).is_file() for pair in _FILES.values() for file in pair)


def fetch() -> Path:
    """Get the data set: as installed, or from the cache, or from Debian's archive.

    Needs no root. The mirror is the one that the machine's own apt uses, and apt checks the
    package's signature chain. Files enter the cache whole, or not at all.

    Returns
    -------
    Path
        Folder of the four IDX files.

    Raises
    ------
    UsageError
        The cache cannot be written.
    Failure
        The machine has no apt, or apt cannot get the package.
    """
    installed = SYSTEM_ROOT / INSTALLED_AT
    if is_complete(installed):
        return installed
    folder = cache_folder() / "fashion-mnist"
    if is_complete(folder):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Beside its destination: the same file system, so that a rename is all or nothing.
        with scratch_folder("fashion-mnist.", folder.parent) as scratch:
            unpacked = _download(PACKAGE, scratch) / INSTALLED_AT
            if not is_complete(unpacked):
                raise Failure(f"the Debian package {PACKAGE} lacks files of Fashion-MNIST")
            for file in unpacked.iterdir():
                file.replace(folder / file.name)
    except OSError as error:
        raise UsageError(f"Fashion-MNIST cannot be kept in {folder}: {error}") from None
    return folder


def _download(package: str, scratch: Path) -> Path:
    """Download a Debian package and unpack it, with no privileges."""
    missing = [tool for tool in ("apt-get", "dpkg-deb") if shutil.which(tool) is None]
    if missing:
        raise Failure(
            f"{package} comes from Debian's archive, and this machine has no {missing[0]}; "
            f"on Debian or Ubuntu: apt-get install {package}"
        )
    environment = dict(os.environ)
    try:
        _run(["apt-get", *_APT_OPTIONS, "download", package], scratch, environment)
    except Failure:
        # The machine's package lists may be absent or stale, and only root may update them.
        environment["APT_CONFIG"] = str(_private_apt(scratch))
        _run(["apt-get", *_APT_OPTIONS, "update"], scratch, environment)
        _run(["apt-get", *_APT_OPTIONS, "download", package], scratch, environment)
    archives = sorted(scratch.glob(f"{package}_*.deb"))
    if not archives:
        raise Failure(f"apt-get downloaded no {package}")
    _run(["dpkg-deb", "-x", str(archives[0]), "unpacked"], scratch, environment)
    return scratch / "unpacked"


def _private_apt(scratch: Path) -> Path:
    """Configure an apt of our own: the machine's sources and keys, but its own state."""
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (scratch / folder).mkdir(parents=True, exist_ok=True)
    config = scratch / "apt.conf"
    config.write_text(
        f'Dir::State "{scratch}/state";\n'
        'Dir::State::status "/var/lib/dpkg/status";\n'
        f'Dir::Cache "{scratch}/cache";\n'
        # Root's apt would drop to a user who may not read a private folder.
        'APT::Sandbox::User "root";\n'
    )
    return config


def _run(argv: list[str], folder: Path, environment: dict[str, str]) -> None:
    """Run a tool to its end; its first complaint becomes the message."""
    try:
        done = subprocess.run(
            argv,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_APT_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Failure(f"{argv[0]} gave no answer within {_APT_TIMEOUT_S} s") from None
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if line.startswith("E:")]
        complaint = (complaints or done.stderr.splitlines() or ["no message"])[0]
        raise Failure(f"{PACKAGE} cannot be had: {argv[0]}: {complaint.removeprefix('E:').strip()}")
