"""A bundle: the folder that travels from the compiler to a device, with all that proves it right.

::

    BUNDLE/
      network.so         Relax virtual machine code, kernels, weights
      manifest.json      what it is, what it needs, what it is made of, and the hash of each file
      reference.npz      inputs and PyTorch's answers
      intermediates.npz  for the first input, samples of what each kernel should write, and of
                         PyTorch's tensors of the same layers

and, where the network was asked for without a runtime, ``NAME.o``, ``libNAME.a``, ``libNAME.so``,
``NAME.h`` and ``example.c``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import numpy as np

from shuffledeploy.compiler.bundle.arrays import NUMBER, Array, Expected, check_arrays, read_arrays
from shuffledeploy.compiler.bundle.elf import check_library
from shuffledeploy.compiler.bundle.layer_samples import LAYER_SAMPLES
from shuffledeploy.compiler.bundle.manifest import (
    LONGEST_MANIFEST,
    Manifest,
    manifest_json,
    parse_manifest,
)
from shuffledeploy.compiler.bundle.manifest_entries import Standalone, Tensor
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.scratch import scratch_folder

LIBRARY, MANIFEST = "network.so", "manifest.json"
REFERENCE, INTERMEDIATES = "reference.npz", "intermediates.npz"
SAMPLES = 256


@dataclasses.dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose files were found to be what its manifest says."""

    path: Path
    manifest: Manifest

    @property
    def library(self) -> Path:
        """The compiled network."""
        return self.path / LIBRARY

    @property
    def standalone(self) -> Standalone:
        """The network without a runtime.

        Raises
        ------
        UsageError
            If the bundle was made without it.
        """
        if self.manifest.standalone is None:
            raise UsageError(
                f"{self.path} has no standalone network: make it with compile/tune.py --standalone"
            )
        return self.manifest.standalone

    @property
    def standalone_library(self) -> Path:
        """Its shared library; a `UsageError` as of :attr:`standalone`."""
        return self.path / self.standalone.library

    @property
    def app_files(self) -> str:
        """Name the two files that an app needs, with their sizes; a `UsageError` as above."""
        made = self.standalone
        header, archive, library = (
            f"{name} ({size_text((self.path / name).stat().st_size)})"
            for name in (made.header, made.archive, made.library)
        )
        return f"{header}, and {archive} or {library}"

    def reference_inputs(self) -> list[list[Array]]:
        """List the inputs of each parity check: those that are stored, then one for each seed."""
        arrays = iter(read_arrays(self.path / REFERENCE, _inputs(self.manifest)).values())
        manifest = self.manifest
        stored = [[next(arrays) for _ in manifest.inputs] for _ in range(manifest.stored_inputs)]
        return [*stored, *(seeded_inputs(manifest.inputs, seed) for seed in manifest.seeds)]

    def reference_outputs(self) -> list[list[Array]]:
        """Give PyTorch's outputs for each of :meth:`reference_inputs`."""
        arrays = read_arrays(self.path / REFERENCE, _outputs(self.manifest))
        return [
            [arrays[f"output_{case}_{i}"] for i in range(len(self.manifest.outputs))]
            for case in range(self.manifest.cases)
        ]

    def intermediate_samples(self) -> list[Array]:
        """Give samples of what each kernel call should write for the stored reference."""
        arrays = read_arrays(self.path / INTERMEDIATES, _samples(self.manifest))
        return list(arrays.values())

    def layer_samples(self) -> list[Array]:
        """Give samples of PyTorch's tensors, for the stored reference, of the manifest's layers."""
        return list(read_arrays(self.path / INTERMEDIATES, _layers(self.manifest)).values())


def size_text(count: int) -> str:
    """Write a number of bytes in MB (10^6 bytes) or kB."""
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.0f} kB"


def _inputs(manifest: Manifest) -> dict[str, Expected]:
    return {
        input_name(case, i): (tensor.shape, tensor.dtype)
        for case in range(manifest.stored_inputs)
        for i, tensor in enumerate(manifest.inputs)
    }


def input_name(case: int, place: int) -> str:
    """Name a tensor of a stored input in the file of references."""
    return f"input_{place}" if case == 0 else f"input_{case}_{place}"


def _outputs(manifest: Manifest) -> dict[str, Expected]:
    return {
        f"output_{case}_{i}": (tensor.shape, tensor.dtype)
        for case in range(manifest.cases)
        for i, tensor in enumerate(manifest.outputs)
    }


def _samples(manifest: Manifest) -> dict[str, Expected]:
    return {f"call_{i}": (SAMPLES, NUMBER) for i in range(len(manifest.kernel_order))}


def _layers(manifest: Manifest) -> dict[str, Expected]:
    return {f"layer_{layer.call}": (LAYER_SAMPLES, "float32") for layer in manifest.layers}


def seeded_inputs(inputs: tuple[Tensor, ...], seed: int) -> list[Array]:
    """Draw standard normal inputs (integers below 2 for integer types) from a seed."""
    generator = np.random.default_rng(seed)
    return [
        np.asarray(generator.standard_normal(spec.shape, np.float32), spec.dtype)
        if np.issubdtype(np.dtype(spec.dtype), np.floating)
        else np.asarray(generator.integers(0, 2, spec.shape), spec.dtype)
        for spec in inputs
    ]


def joined(parts: Sequence[Array]) -> Array:
    """Lay the tensors that one kernel call wrote end to end; one alone is given as it is."""
    if len(parts) == 1:
        return parts[0]
    return np.concatenate([part.reshape(-1).astype(np.float64) for part in parts])


def sample(values: Array) -> Array:
    """Pick at most `SAMPLES` evenly spread elements of a tensor."""
    flat = np.asarray(values).reshape(-1)
    return flat[:: max(1, math.ceil(flat.size / SAMPLES))].copy()


def check_output(path: Path) -> None:
    """Find out before the work, not after it, that a bundle cannot be written.

    Raises
    ------
    UsageError
        As :func:`written_beside`.
    """
    with _scratch_beside(path.resolve()):
        pass


@contextmanager
def _scratch_beside(path: Path) -> Iterator[Path]:
    if (
        path.exists()
        and not (path / MANIFEST).is_file()
        and (not path.is_dir() or any(path.iterdir()))
    ):
        raise UsageError(f"{path} exists and is not a bundle: name another --output")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(f".{path.name}.", path.parent) as scratch:
            yield scratch
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}; name another --output") from error


@contextmanager
def written_beside(path: Path) -> Iterator[Path]:
    """Give a scratch folder that becomes `path` when the block ends well, and vanishes otherwise.

    Raises
    ------
    UsageError
        If the folder cannot be written, or `path` holds something that is not a bundle.
    """
    path = path.resolve()  # so that "." has a name and a parent too
    with _scratch_beside(path) as scratch:
        yield scratch
        scratch.chmod(0o755)
        with scratch_folder(f".{path.name}.old.", path.parent) as old:
            if path.exists():
                path.rename(old / "bundle")
            scratch.rename(path)


def write_manifest(folder: Path, manifest: Manifest) -> Manifest:
    """Hash the files in `folder` and write the manifest beside them."""
    files = {p.name: file_hash(p) for p in sorted(folder.iterdir()) if p.is_file()}
    manifest = msgspec.structs.replace(manifest, files=files)
    (folder / MANIFEST).write_bytes(manifest_json(manifest))
    return manifest


def file_hash(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() if hasattr(
            hashlib, "file_digest") else hashlib.sha256(stream.read()).hexdigest()  # fmt: skip


def load_bundle(path: Path) -> Bundle:
    """Open a bundle and check every file against its manifest before anything is used.

    Raises
    ------
    UsageError
        If there is no bundle, its manifest is damaged or of another format, a file is missing, is
        a link or no file, a byte of one was changed, or one is not what the manifest says.
    """
    manifest_path = path / MANIFEST
    if not _is_file(manifest_path):
        raise UsageError(f"{path} is not a bundle (no {MANIFEST}): make one with compile/tune.py")
    if manifest_path.stat().st_size > LONGEST_MANIFEST:
        raise UsageError(f"{manifest_path} is damaged: it is longer than any manifest")
    try:
        manifest = parse_manifest(manifest_path.read_bytes())
    except (ValueError, TypeError) as error:
        raise UsageError(f"{manifest_path} is damaged: {error}") from error
    for name, expected in manifest.files.items():
        if Path(name).name != name or name in ("", ".."):
            raise UsageError(f"{manifest_path} names a file outside the bundle: {name!r}")
        file = path / name
        if not file.exists():
            raise UsageError(f"{path} is incomplete: {name} is missing; make the bundle again")
        if not _is_file(file):
            raise UsageError(f"{file} is no file: a bundle has no links, pipes or devices")
        if file_hash(file) != expected:
            raise UsageError(f"{file} was changed after it was built; make the bundle again")
    alone = manifest.standalone
    standalone = () if alone is None else (alone.object, alone.archive, alone.library, alone.header)
    for name in (LIBRARY, REFERENCE, INTERMEDIATES, *standalone):
        if name not in manifest.files:
            raise UsageError(f"{manifest_path} does not vouch for {name}; make the bundle again")
    check_library(path / LIBRARY, manifest.architecture)
    if alone is not None:
        check_library(path / alone.library, manifest.architecture)
    check_arrays(path / REFERENCE, _inputs(manifest) | _outputs(manifest))
    check_arrays(path / INTERMEDIATES, _samples(manifest) | _layers(manifest))
    return Bundle(path, manifest)


def _is_file(path: Path) -> bool:
    """Whether it is a file of the folder itself; a link may lead anywhere."""
    return path.is_file() and not path.is_symlink()
