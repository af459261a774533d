"""Boards: rows, files of users', and what their memory adds."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from shuffledeploy.compiler.cores import CORES, LINE
from shuffledeploy.deploy.estimate.board_cycles import cycles_on
from shuffledeploy.deploy.estimate.boards import BOARDS, Board, find_board, read_board
from shuffledeploy.deploy.estimate.caches import BLOCKED_LOAD, KIB, Cache
from shuffledeploy.deploy.estimate.executed_blocks import MemoryEvents
from shuffledeploy.deploy.estimate.memory_cycles import CodePiece, with_memory
from shuffledeploy.deploy.estimate.reference_boards import kernel_memory
from shuffledeploy.model.errors import UsageError

pytestmark = pytest.mark.smoke

GOOD = 'core = "cortex-a72"\nclock_ghz = 1.5\nmemcpy_mb_s = 3000\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_every_board_has_a_known_core_and_caches_that_the_plugin_takes() -> None:
    for name, board in BOARDS.items():
        assert find_board(name) is board
        assert board.core in CORES
        caches = board.caches
        levels = [level for level in (caches.first, caches.second, caches.third) if level]
        assert all((level.size // LINE // level.ways).bit_count() == 1 for level in levels)
        assert 0.5 < board.memory_bytes < 20
    assert BOARDS["oneplus-7t"].stands_in.startswith("that of rk3588-big")
    assert not BOARDS["rk3588-big"].stands_in
    assert BOARDS["raspberry-pi-4"].memory_bytes == pytest.approx(2.68, abs=0.01)


def test_a_misspelt_board_is_told_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"did you mean raspberry-pi-4\?"):
        find_board("rapsberry-pi-4")
    with pytest.raises(UsageError, match="there are raspberry-pi-3b"):
        find_board("toaster")


def test_a_file_makes_a_board(tmp_path: Path) -> None:
    levels = "second_level_kib = 512\nsecond_level_ways = 8\n"
    levels += "third_level_kib = 3072\nthird_level_ways = 12\n"
    path = written(tmp_path, GOOD + levels)
    assert find_board(str(path)) == Board(
        "mine", "cortex-a72", 1.5, 3000, Cache(512 * KIB, 8), Cache(3072 * KIB, 12)
    )
    assert read_board(written(tmp_path, GOOD)).caches.third is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('core = "cortex-a72"\nclock_ghz = 1.5\n', "missing required field `memcpy_mb_s`"),
        (GOOD.replace("1.5", "1500"), "<= 10.0"),
        (GOOD.replace("3000", "3"), ">= 50.0"),
        (GOOD.replace("3000", "nan"), "not right"),
        (GOOD + "colour = 3\n", "unknown field `colour`"),
        (GOOD.replace("a72", "a720"), "the core 'cortex-a720', of which there is no model"),
        (GOOD.replace("a72", "a720"), "instructions are counted all the same"),
        (GOOD + "second_level_kib = 512\n", "second_level_kib and _ways go together"),
        (GOOD + "third_level_kib = 3072\nthird_level_ways = 16\n", "no power of two of sets"),
        (GOOD + "second_level_kib = 32\nsecond_level_ways = 2\n", "levels of 32, 32 KiB"),
        (GOOD + "third_level_kib = 512\nthird_level_ways = 16\n", "levels of 32, 1024, 512 KiB"),
        (GOOD.replace("3000", "90000"), "120 bytes a cycle, which no memory gives"),
        (GOOD.replace("1.5", "inf"), "<= 10.0"),
        ("core = ", "not right"),
        ("#" * 70_000, "more than 64 KiB"),
    ],
)
def test_a_bad_board_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        read_board(written(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_board_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        find_board(str(tmp_path / "none.toml"))
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(UsageError, match="is no file"):
        find_board(str(tmp_path / "pipe.toml"))


def events(**wanted: int) -> MemoryEvents:
    return MemoryEvents(*(wanted.get(name, 0) for name in MemoryEvents._fields))


def test_memory_adds_lines_at_the_width_of_each_level() -> None:
    # 128 bits from the second level; two bytes a cycle from memory.
    board = Board("plain", "cortex-a72", 2.0, 2000)
    caches = board.caches
    seen = events(following_lines=10, starting_lines=2, l2_misses=3, page_misses=5, blocked_loads=1)
    (code, first, third, stalls, memory) = cycles_on(board, [CodePiece(1000, seen)]).cycles
    assert (code, first, third) == (1000, 10 * 4 + 2 * caches.start_cycles, 0)
    # Of many lines that start, as many as can are wanted together.
    many = cycles_on(board, [CodePiece(1000, events(starting_lines=100))]).cycles
    assert many.first_level == 100 * 4 + 1000
    assert stalls == 5 * caches.translation.cycles + BLOCKED_LOAD
    # Three lines of 32 cycles each come while the code works.
    assert memory == 0
    found = cycles_on(board, [CodePiece(1000, events(l2_misses=3))])
    assert found.milliseconds == pytest.approx(1000 / 2e6)


def test_lines_and_pages_cost_what_was_measured_of_a_core() -> None:
    seen = events(following_lines=9, page_misses=2)
    cost = {}
    for core in ("cortex-a57", "cortex-a72", "cortex-a73"):
        cycles = cycles_on(Board("plain", core, 2.0, 2000), [CodePiece(1000, seen)]).cycles
        cost[core] = cycles.first_level, cycles.stalls
    assert cost == {"cortex-a57": (36, 40), "cortex-a72": (36, 6), "cortex-a73": (64, 10)}


def test_lines_from_memory_hide_behind_their_own_piece_alone() -> None:
    board = Board("plain", "cortex-a72", 2.0, 2000)
    busy, idle = CodePiece(1000, events()), CodePiece(100, events(l2_misses=30))
    assert cycles_on(board, [busy, idle]).total == 1000 + 30 * 32
    assert cycles_on(board, [CodePiece(1100, events(l2_misses=30))]).total == 1100
    # What was changed is written back when nothing else is done.
    written = CodePiece(1000, events(dirty_lines=3))
    assert cycles_on(board, [written]).cycles.memory == 3 * 32


def test_a_third_level_catches_lines() -> None:
    board = Board("plain", "cortex-a72", 2.0, 2000, third=Cache(2048 * KIB, 16))
    seen = events(following_lines=10, l2_misses=3, l3_misses=1)
    assert cycles_on(board, [CodePiece(0, seen)]).cycles == (0, 10 * 4, 2 * 4, 0, 0)
    assert cycles_on(board, [CodePiece(0, events(l2_misses=1, l3_misses=1))]).cycles.memory == 32
    # The Cortex-A76 works on meanwhile.
    fast = dataclasses.replace(board, core="cortex-a76")
    assert cycles_on(fast, [CodePiece(40, seen)]).cycles == (40, 0, 0, 0, 0)


def test_lines_of_a_third_level_behind_a_mesh_add_and_others_hide() -> None:
    piece = CodePiece(1000, events(l2_misses=100))
    mesh, ring = (kernel_memory(name) for name in ("emeraldrapids", "cascadelake"))
    assert mesh is not None and ring is not None
    assert with_memory(piece, *ring).total == 1000
    # Sixteen at a time, each 111 cycles under way.
    assert with_memory(piece, *mesh).total == pytest.approx(1000 + 100 / 16 * 111)
