"""The wheel in a fresh environment and an empty folder: commands, records, API."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

#: C, C++, tables and the parts of a page: what is no Python and comes along.
KINDS = (".c", ".cpp", ".h", ".csv", ".toml", ".j2", ".css")
PROJECT = Path(__file__).resolve().parents[1]


def _run(*command: str | Path, **options: object) -> str:
    done = subprocess.run(  # type: ignore[call-overload]
        command, check=False, capture_output=True, text=True, timeout=300, **options
    )
    assert done.returncode == 0, done.stderr[-1000:]
    return str(done.stdout)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel; what it depends on is taken from the environment of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    if importlib.util.find_spec("pip") is None:
        pytest.skip("no pip")
    # From a copy: setuptools leaves its work beside the sources, and takes it up again.
    source = folder / "source"
    source.mkdir()
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / file, source)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PROJECT / "shuffledeploy", source / "shuffledeploy", ignore=ignored)
    alone = ["--no-build-isolation"] if importlib.util.find_spec("setuptools") else []
    _run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", *alone, "-w", folder, source)
    (wheel,) = folder.glob("shuffledeploy-*.whl")
    _run(sys.executable, "-m", "venv", folder / "venv")
    python = folder / "venv" / "bin" / "python"
    _run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel)
    site = Path(
        _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    )
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def _environment(home: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
    return {**kept, "HOME": str(home)}


def _files(python: Path) -> set[str]:
    place = "import shuffledeploy; print(list(shuffledeploy.__path__)[0])"
    package = Path(_run(python, "-c", place, cwd="/").strip())
    assert package.is_relative_to(python.parents[1])
    found = (path for path in package.rglob("*") if "__pycache__" not in path.parts)
    return {str(path.relative_to(package)) for path in found}


def _carried_files() -> set[str]:
    folders = {"compiler": PROJECT / "compile"}
    folders |= {name: PROJECT / name for name in ("deploy", "model")}
    return {
        str(name / path.relative_to(folder))
        for name, folder in ((Path(name), folder) for name, folder in folders.items())
        for path in folder.rglob("*")
        if path.suffix in KINDS
    }


def test_an_installed_copy_compiles_with_records_and_writes_nothing_into_itself(
    installed: Path, tmp_path: Path
) -> None:
    empty, home = tmp_path / "empty", tmp_path / "home"
    empty.mkdir()
    home.mkdir()
    before = _files(installed)
    assert {"tuning_logs/cortex-a72/records.jsonl", "py.typed"} <= before
    assert {path for path in before if path.endswith(KINDS)} == _carried_files()
    command, options = (
        installed.with_name("shuffledeploy"),
        {"cwd": empty, "env": _environment(home)},
    )
    assert _run(command, "--version", **options).startswith("shuffledeploy ")
    assert "cortex-a72" in _run(command, "logs", "show", "--target", "arm", **options)
    # A record that comes along, for ARM; then one that is found here, for this machine.
    tune = (command, "tune", "--model", "shufflenet-fashion", "--json", "report.json")
    _run(*tune, "--target", "arm", "--trials", "0", "--no-check", "--standalone", **options)
    assert json.loads((empty / "report.json").read_text())["tasks_with_record"] > 0
    _run(*tune, "--target", "host", "--trials", "2", "--score", "latency", **options)
    (log,) = (home / ".local" / "share" / "shuffledeploy" / "tuning_logs").glob("*/records.jsonl")
    assert log.parent.name.startswith("host-")
    report = json.loads((empty / "report.json").read_text())
    assert report["parity"]["passed"]
    assert report["tasks_with_record"] > 0
    assert "parity" in _run(command, "run", report["bundle"], "--runs", "3", **options)
    assert {path.name for path in empty.iterdir()} == {"build", "report.json"}
    assert _files(installed) == before
