"""What the compiler's tests share: a collector that leaves the heap alone, a bundle, texts."""

from __future__ import annotations

import dataclasses
import gc
import shutil
from pathlib import Path

import pytest
import stages
from golden_files import FLAG, FOLDER, GoldenFiles
from shuffled_bundle import write_shuffled
from standalone_networks import NORMALISATION, standalone
from strip_networks import SMALL, Units
from tuning_by_size import network_tasks

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.tuning.search.tasks import Task

# Going over some millions of live objects again and again took a third of the tests' time.
assert stages.HOST
gc.freeze()
gc.set_threshold(200_000, 50, 50)


@pytest.fixture(autouse=True)
def _threads_share_out_small_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let several threads compute the tests' networks, which are too small to gain by it."""
    monkeypatch.setattr("shuffledeploy.compiler.pipeline.LEAST_WORK", 0)


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Return a bundle that is in order; copy it to change it."""
    return write_shuffled(tmp_path_factory.mktemp("bundles") / "made")


@pytest.fixture
def copy(made: Bundle, tmp_path: Path) -> Path:
    """Return a copy of a bundle, to change."""
    return Path(shutil.copytree(made.path, tmp_path / "copy"))


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    """Return the kernels of a small network, to tune."""
    return network_tasks()


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> GoldenFiles:
    """Return what compares texts of graphs with those that are kept."""
    return GoldenFiles(FOLDER, update=request.config.getoption(FLAG))


@pytest.fixture(scope="session")
def units(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Share a bundle with strips, a concatenation in place, and its network without a runtime."""
    folder = tmp_path_factory.mktemp("units")
    little_cache = dataclasses.replace(stages.HOST, cache=SMALL)
    image = stages.draw(1, 3, 40, 40)
    return standalone(
        folder, Units(), image, target=little_cache, normalisation=NORMALISATION
    )  # fmt: skip
