"""The cache: what is executed from it is this user's alone, and built by one at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from shuffledeploy.model.cache_folder import cache_folder
from shuffledeploy.model.errors import UsageError

if TYPE_CHECKING:
    from tests.conftest import Leftovers

PROJECT = Path(__file__).resolve().parents[2]
BUILD = """
import sys, time
from pathlib import Path
from shuffledeploy.deploy.board.places import built_once
def build(draft):
    (draft / "first").write_text(sys.argv[1])
    time.sleep(float(sys.argv[2]))
    (draft / "second").write_text(sys.argv[1])
folder = built_once("thing-1", build)
print((folder / "first").read_text(), (folder / "second").read_text(), flush=True)
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "shuffledeploy"


def _build(environment: dict[str, str], name: str, seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", BUILD, name, str(seconds)], cwd=PROJECT, env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.smoke
def test_the_cache_is_made_for_this_user_alone(cache: Path) -> None:
    assert cache_folder() == cache
    assert cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.smoke
@pytest.mark.parametrize("mode", [0o770, 0o777, 0o1777, 0o722])
def test_a_cache_that_others_may_write_to_is_refused(cache: Path, mode: int) -> None:
    cache.mkdir()
    cache.chmod(mode)
    with pytest.raises(UsageError, match=r"others may write to .*chmod go-w"):
        cache_folder()


@pytest.mark.smoke
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_cache_of_somebody_else_is_refused(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.mkdir(mode=0o700)
    os.chown(cache, 12345, 12345)
    with pytest.raises(UsageError, match="belongs to user 12345"):
        cache_folder()
    # A link into somebody else's folder is no better.
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "shuffledeploy").symlink_to(cache)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "linked"))
    with pytest.raises(UsageError, match="belongs to user 12345"):
        cache_folder()


@pytest.mark.smoke
def test_no_cache_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    for home in ("/dev/null", "/proc/nowhere"):
        monkeypatch.setenv("HOME", home)
        with pytest.raises(UsageError, match="set XDG_CACHE_HOME"):
            cache_folder()


def test_of_two_builders_the_second_waits(leftovers: Leftovers, tmp_path: Path) -> None:
    environment = {**leftovers.environment, "XDG_CACHE_HOME": str(tmp_path)}
    first = _build(environment, "one", 3.0)
    while not list(tmp_path.glob("shuffledeploy/.thing-1-*/first")):
        assert first.poll() is None
        time.sleep(0.02)
    second = _build(environment, "two", 0.0)
    told = [process.communicate(timeout=30) for process in (first, second)]
    assert [out for out, _ in told] == ["one one\n", "one one\n"]
    assert "another command is building thing-1" in told[1][1]


def test_what_a_killed_builder_left_is_not_taken(leftovers: Leftovers, tmp_path: Path) -> None:
    environment = {**leftovers.environment, "XDG_CACHE_HOME": str(tmp_path)}
    first = _build(environment, "one", 60.0)
    while not list(tmp_path.glob("shuffledeploy/.thing-1-*/first")):
        assert first.poll() is None
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    second = _build(environment, "two", 0.0)
    assert second.communicate(timeout=30)[0] == "two two\n"
    leftovers.assert_none_within(5)
    assert [p.name for p in (tmp_path / "shuffledeploy").iterdir() if p.is_dir()] == ["thing-1"]
