"""Costs of code that earlier runs found: one file for each core, llvm-mca and estimator."""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from shuffledeploy.deploy.estimate.block_costs import BlockCost
from shuffledeploy.model.cache_folder import cache_folder

# The file is read at each start, some 10 MB of this many: with more it begins anew.
MOST_REMEMBERED = 100_000
# The file is written as a whole: at the end of a run, and about so often before it.
SAVE_EVERY_S = 20.0


class RememberedCosts:
    """Costs by the code's hash, kept over runs; two tuners may share them.

    A file that cannot be read counts as empty, and one that cannot be written costs only time:
    whatever is lost is worked out again.

    Parameters
    ----------
    name : str
        Of what the costs depend on beside the code: architecture, core, versions.
    folder : Path, optional
        Where the file is; the project's cache by default.
    """

    def __init__(self, name: str, folder: Path | None = None) -> None:
        folder = folder or cache_folder() / "block-costs"
        self.path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
        self._name = name
        self._known = self._read()
        self._unsaved: dict[str, BlockCost] = {}
        self._saved_at = time.monotonic()
        atexit.register(self.save)

    def find(self, code: bytes) -> BlockCost | None:
        """Return what code costs, None where no run has found it."""
        return self._known.get(_key(code))

    def add(self, found: Mapping[bytes, BlockCost]) -> None:
        """Remember costs, on the disk too before long."""
        new = {_key(code): cost for code, cost in found.items()}
        self._known.update(new)
        self._unsaved.update(new)
        if time.monotonic() - self._saved_at > SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Write what is new, beside what other runs wrote meanwhile."""
        self._saved_at = time.monotonic()
        if not self._unsaved:
            return
        try:
            with _locked(self.path.parent):
                together = {**self._read(), **self._unsaved}
                self._write(self._unsaved if len(together) > MOST_REMEMBERED else together)
        except OSError:
            return
        self._unsaved = {}

    def _read(self) -> dict[str, BlockCost]:
        try:
            document = json.loads(self.path.read_text(encoding="utf-8"))
            if document["of"] != self._name:
                return {}
            return {
                key: BlockCost(float(iterations), float(throughput), tuple(map(str, outlying)))
                for key, (iterations, throughput, *outlying) in document["costs"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _write(self, known: Mapping[str, BlockCost]) -> None:
        costs = {k: (c.iterations, c.throughput, *c.outlying) for k, c in known.items()}
        handle, beside = tempfile.mkstemp(prefix=f".{self.path.stem}-", dir=self.path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump({"of": self._name, "costs": costs}, stream, separators=(",", ":"))
            Path(beside).replace(self.path)
        finally:
            Path(beside).unlink(missing_ok=True)


def _key(code: bytes) -> str:
    return hashlib.blake2b(code, digest_size=16).hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other tuners from writing there meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
