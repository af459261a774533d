"""Builds the server that devices run: a folder to push, and the command to start in it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.compiler import native_tools
from shuffledeploy.compiler.native_tools import compile_c
from shuffledeploy.deploy.board import apt_tree, wheels
from shuffledeploy.deploy.board.places import built_once, recipe_hash, step
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.scratch import scratch_folder

SERVER = "tvm_rpc_server"
#: Of glibc and GCC, in Debian's packages of `_PACKAGES`; the first is the loader.
_SYSTEM_LIBRARIES = (
    "ld-linux-aarch64.so.1", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0",
    "libgcc_s.so.1", "libstdc++.so.6",
)  # fmt: skip
_PACKAGES = ("libc6", "libstdc++6", "libgcc-s1")
#: Library of TVM's -> the package that brings it, the folder in which it lies there.
_TVM_LIBRARIES = {
    "libtvm_runtime.so": ("apache-tvm", "tvm/lib"),
    "libtvm_ffi.so": ("apache-tvm-ffi", "tvm_ffi/lib"),
}
_SOURCES = (
    "rpc_server.c", "server_options.c", "greeting.c", "session.c", "tracker_link.c",
    "device_functions.c", "device_description.c", "loaded_libraries.c",
)  # fmt: skip
_HERE = Path(__file__).parent
#: The C library that the wheels of `wheels.PLATFORMS` ask for.
_GLIBC = "2.28"


@dataclass(frozen=True)
class NativeServer:
    """The files of the server.

    Attributes
    ----------
    folder : Path
        Exactly what is to be pushed; there are no folders in it.
    digest : str
        A hash over the names and contents, in hexadecimal.
    command : tuple of str
        The command that starts the server, to be given in that folder.
    """

    folder: Path
    digest: str
    command: tuple[str, ...]


def ensure_server(architecture: str = "aarch64") -> NativeServer:
    """Return the server for devices of an architecture, building it on first use (about 20 s).

    Parameters
    ----------
    architecture : str
        ``aarch64``, whose server brings its C library along (10 MB), or ``x86_64`` on a machine
        that is one itself, whose server uses the device's C library.

    Raises
    ------
    Failure
        When a package cannot be fetched, or there is no server for that architecture.
    """
    if architecture != "aarch64" and not architecture == platform.machine() == "x86_64":
        raise Failure(f"there is no server for {architecture} devices; there is one for aarch64")
    libraries = _ensure_libraries(architecture)
    sources = (*(_HERE / name for name in _SOURCES), *sorted(_HERE.glob("*.h")))
    builders = (Path(__file__), Path(native_tools.__file__))
    recipe = recipe_hash(*sources, *builders, libraries.name)

    def build(folder: Path) -> None:
        _build(folder, libraries, architecture)

    built = built_once(f"server-{architecture}-{recipe}", build)
    loader = (f"./{_SYSTEM_LIBRARIES[0]}", "--library-path", ".")
    command = (*(loader if architecture == "aarch64" else ()), f"./{SERVER}")
    return NativeServer(built / "files", (built / "digest.txt").read_text(), command)


def _pinned() -> list[str]:
    """Return TVM's pair of packages as pip takes them, at the versions installed here."""
    names = [package for package, _ in _TVM_LIBRARIES.values()]
    try:
        return [f"{name}=={importlib.metadata.version(name)}" for name in names]
    except importlib.metadata.PackageNotFoundError as error:
        raise Failure(f"{error.name} is not installed; devices take the same version") from error


def _ensure_libraries(architecture: str) -> Path:
    """Return a folder with what the server loads: a change of the server does not fetch it anew."""
    fetchers = (Path(apt_tree.__file__), Path(wheels.__file__))
    wanted = (architecture, *_pinned(), *_SYSTEM_LIBRARIES, *_PACKAGES, *_TVM_LIBRARIES)

    def build(folder: Path) -> None:
        if architecture == "aarch64":
            _fetch_system(folder)
            _fetch_tvm(folder)
        else:
            _copy_tvm(folder)

    return built_once(f"libraries-{architecture}-{recipe_hash(*fetchers, *wanted)}", build)


def _build(folder: Path, libraries: Path, architecture: str) -> None:
    """Fill the server's folder."""
    files = folder / "files"
    shutil.copytree(libraries, files, copy_function=os.link)
    with step(f"compile the server for {architecture}"):
        _compile(files, architecture)
    for file in files.iterdir():
        file.chmod(0o755)
    (folder / "digest.txt").write_text(_digest(files))


def _fetch_system(files: Path) -> None:
    """Take the C library and what GCC's code needs from Debian's arm64 packages."""
    with scratch_folder("shuffledeploy-apt-") as scratch:
        tree = apt_tree.open_tree(scratch, "arm64")
        apt_tree.unpack(tree, _PACKAGES, scratch / "system")
        for name in _SYSTEM_LIBRARIES:
            found = next((scratch / "system").rglob(name), None)
            if found is None:
                raise Failure(f"{name} is in none of the packages {', '.join(_PACKAGES)}")
            shutil.copyfile(found, files / name)


def _fetch_tvm(files: Path) -> None:
    """Take TVM's runtime from the wheels for aarch64."""
    wanted = "|".join(map(re.escape, _TVM_LIBRARIES))
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    with scratch_folder("shuffledeploy-wheels-") as scratch:
        wheels.unpack_wheels(
            _pinned(), python, scratch, what="TVM's runtime",
            left_out=re.compile(rf"^(?!.*/({wanted})$)"),
        )  # fmt: skip
        for name, (_, place) in _TVM_LIBRARIES.items():
            shutil.copyfile(scratch / place / name, files / name)


def _copy_tvm(files: Path) -> None:
    """Take TVM's runtime from the packages that are installed here."""
    for name, (_, place) in _TVM_LIBRARIES.items():
        shutil.copyfile(_installed(place.split("/", maxsplit=1)[0]) / "lib" / name, files / name)


def _installed(package: str) -> Path:
    """Return the folder of an installed package, without importing it."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise Failure(f"the package {package} is not installed")
    return Path(found.origin).parent


def _compile(files: Path, architecture: str) -> None:
    """Compile the server and link it with TVM's runtime, which lies beside it."""
    version = importlib.metadata.version("apache-tvm")
    flags = (
        "-std=c11", "-s", "-target", f"{architecture}-linux-gnu.{_GLIBC}", "-D_GNU_SOURCE",
        f'-DTVM_VERSION="{version}"', f"-I{_installed('tvm_ffi') / 'include'}", f"-L{files}",
        # The server calls the runtime by names of functions only: the linker sees no need for it.
        "-Wl,--no-as-needed", "-ltvm_runtime", "-ltvm_ffi", "-lm", "-Wl,--allow-shlib-undefined",
        "-Wl,-rpath,$ORIGIN",
    )  # fmt: skip
    first, *others = (_HERE / name for name in _SOURCES)
    with scratch_folder("shuffledeploy-server-") as scratch:
        compile_c(first, scratch / SERVER, flags, others)
        shutil.copyfile(scratch / SERVER, files / SERVER)


def _digest(files: Path) -> str:
    """Hash the names and contents of all files."""
    digest = hashlib.sha256()
    for file in sorted(files.iterdir()):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
