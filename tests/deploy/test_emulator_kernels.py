"""The kernel counter is exact, repeats itself, and says why a kernel gives no count."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from shuffledeploy.compiler.cores import CORES
from shuffledeploy.compiler.native_tools import compile_c
from shuffledeploy.deploy.board.qemu import Emulator
from shuffledeploy.deploy.estimate.caches import (
    ARM_CACHES,
    LINE,
    Cache,
    Caches,
    Translation,
)
from shuffledeploy.deploy.estimate.host_caches import as_on_this_machine
from shuffledeploy.deploy.estimate.x86_caches import X86_CACHES
from shuffledeploy.deploy.scoring.count_kernels import KernelCount, KernelObject, count_kernels
from shuffledeploy.model.errors import UsageError

pytestmark = pytest.mark.emulated

_FLAGS = ("-c", "-target", "aarch64-linux-musl", "-ffreestanding", "-fno-builtin")
_VECTOR = (((100,), "float32"),)


def _kernel(folder: Path, body: str, name: str = "__tvm_ffi_main") -> KernelObject:
    """Compile a kernel whose every instruction is written out."""
    source = folder / f"{name}.c"
    source.write_text(f'__attribute__((naked)) int {name}(void) {{ __asm__ volatile("{body}"); }}')
    compile_c(source, source.with_suffix(".o"), _FLAGS)
    return KernelObject(source.with_suffix(".o"), name, _VECTOR)


def test_counts_every_instruction_of_a_known_kernel(emulator: Emulator, tmp_path: Path) -> None:
    # 1, then 100 rounds of 2, then 2: the call before the marked one is not counted.
    kernel = _kernel(tmp_path, r"mov x9, #100\n 1: subs x9, x9, #1\n b.ne 1b\n mov w0, #0\n ret")
    (count,) = count_kernels([kernel], "cortex-a72")
    assert isinstance(count, KernelCount), count
    assert count.instructions == 1 + 100 * 2 + 2
    assert sum(block.executions for block in count.blocks if block.instructions == 2) >= 99
    assert count.helper_instructions == 0


def test_the_stack_lies_where_it_does_whatever_the_environment_holds(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As many rounds as the stack pointer tells: which lines of a cache a kernel's stack takes.
    body = (
        r"mov x9, sp\n ubfx x9, x9, #4, #12\n add x9, x9, #1\n"
        r" 1: subs x9, x9, #1\n b.ne 1b\n mov w0, #0\n ret"
    )
    found = []
    for length in (1, 100, 1000):
        monkeypatch.setenv("SOMETHING_OF_THIS_MACHINE", "x" * length)
        found += count_kernels([_kernel(tmp_path, body)], "cortex-a72")
    totals = [count.total for count in found if isinstance(count, KernelCount)]
    assert totals == [totals[0]] * 3


def test_the_same_count_twice_cold_and_on_every_core(emulator: Emulator, tmp_path: Path) -> None:
    source = tmp_path / "sum.c"
    source.write_text(
        "struct any { int index, pad; struct { float *data; } *tensor; };"
        "int __tvm_ffi_sum(void *s, struct any *a, int n, void *r) {"
        " float *x = a[0].tensor->data, t = 0; int i; for (i = 0; i < 100; ++i) t += x[i] * n;"
        " x[0] = t; (void)s, (void)r; return 0; }"
    )
    compile_c(source, tmp_path / "sum.o", _FLAGS)
    kernel = KernelObject(tmp_path / "sum.o", "__tvm_ffi_sum", _VECTOR)
    first, again = count_kernels([kernel, kernel], "cortex-a72", workers=2)
    (other,) = count_kernels([kernel], "cortex-a53", warm=False)
    assert isinstance(first, KernelCount), first
    assert first == again == other


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (r"mov w0, #-1\n ret", "returned an error"),
        (r"mov x9, #0\n ldr x9, [x9]\n ret", "SIGSEGV"),
        (r".arch armv8.2-a+dotprod\n sdot v0.4s, v1.16b, v2.16b\n mov w0, #0\n ret", "SIGILL"),
        (r"b .", "still running after 0.5 s"),
        (r"b nowhere_to_be_found", "nowhere_to_be_found"),
    ],
)
def test_a_kernel_without_a_count_says_why(
    emulator: Emulator, tmp_path: Path, body: str, reason: str
) -> None:
    bad = _kernel(tmp_path, body)
    good = _kernel(tmp_path, r"mov w0, #0\n ret", "__tvm_ffi_good")
    failed, counted = count_kernels([bad, good], "cortex-a72", timeout_s=0.5)
    assert isinstance(failed, str)
    assert reason in failed
    assert isinstance(counted, KernelCount)
    assert counted.instructions == 2


def test_dot_products_run_where_the_core_has_them(emulator: Emulator, tmp_path: Path) -> None:
    body = r".arch armv8.2-a+dotprod\n sdot v0.4s, v1.16b, v2.16b\n mov w0, #0\n ret"
    (count,) = count_kernels([_kernel(tmp_path, body)], "cortex-a76")
    assert isinstance(count, KernelCount), count
    assert count.instructions == 3


@pytest.mark.parametrize(
    ("lines", "rounds", "first", "second", "pages"),
    [
        (256, 3, 0, 0, 0),
        (1024, 3, 3 * 1024, 0, 0),
        (32768, 2, 2 * 32768, 2 * 32768, 2 * 32768 // 64),
    ],
)
def test_misses_are_those_of_caches_that_replace_the_oldest(
    emulator: Emulator, tmp_path: Path, lines: int, rounds: int, first: int, second: int, pages: int
) -> None:
    # Reads a tensor line by line, from front to back, several times: of an A72's 32 KiB, 1 MiB and
    # 32 pages, one that is larger keeps nothing until it is wanted again.
    body = (
        rf"mov x12, #{rounds}\n 2: ldr x9, [x1, #8]\n ldr x9, [x9]\n mov x10, #{lines}\n"
        r" 1: ldr x11, [x9], #64\n subs x10, x10, #1\n b.ne 1b\n"
        r" subs x12, x12, #1\n b.ne 2b\n mov w0, #0\n ret"
    )
    kernel = _kernel(tmp_path, body)
    kernel = KernelObject(kernel.path, kernel.symbol, (((lines * 16,), "float32"),))
    counts = [
        count_kernels([kernel], "cortex-a72", warm=warm, caches=ARM_CACHES["cortex-a72"])[0]
        for warm in (True, False)
    ]
    # The runner fills a tensor with copies of its first lines: only these are left when it is done.
    for count, left in zip(counts, (0, 17 * 64 * 4 // 64), strict=True):
        assert isinstance(count, KernelCount), count
        assert count.memory is not None
        # The stack and the arguments take a few lines more.
        assert first - left <= count.memory.l1_misses <= first + 16
        assert second - left <= count.memory.l2_misses <= second + 16
        assert pages - min(left, 32) <= count.memory.page_misses <= pages + 16
    (plain,) = count_kernels([kernel], "cortex-a72")
    assert isinstance(plain, KernelCount)
    assert plain.memory is None
    # What executes is the same.
    assert plain == counts[0]


@pytest.mark.parametrize(
    ("accesses", "blocked"),
    [
        # All from one store: bytes that it wrote, a part of them, none of them.
        (r"str q0, [x9]\n ldr q1, [x9]", 0),
        (r"str q0, [x9]\n ldr x10, [x9, #8]", 0),
        (r"str x10, [x9]\n ldr q1, [x9, #16]", 0),
        # A part that was stored, and one that lay there or came from another store.
        (r"str x10, [x9]\n ldr q1, [x9]", 1),
        (r"str x10, [x9]\n str x10, [x9, #8]\n ldr q1, [x9]", 1),
        # Four stores later the first is in the cache.
        (r"str x10, [x9]\n " + r"str x10, [x9, #64]\n " * 4 + r"ldr q1, [x9]", 0),
    ],
)
def test_loads_wait_for_stores_that_wrote_a_part_of_them(
    emulator: Emulator, tmp_path: Path, accesses: str, blocked: int
) -> None:
    body = rf"ldr x9, [x1, #8]\n ldr x9, [x9]\n {accesses}\n mov w0, #0\n ret"
    kernel = _kernel(tmp_path, body)
    kernel = KernelObject(kernel.path, kernel.symbol, (((64,), "float32"),))
    (count,) = count_kernels([kernel], "cortex-a72", caches=ARM_CACHES["cortex-a72"])
    assert isinstance(count, KernelCount), count
    assert count.memory is not None
    assert count.memory.blocked_loads == blocked


def test_every_core_has_caches_and_lines_take_their_cycles() -> None:
    assert set(CORES) <= set(ARM_CACHES)
    # The plugin takes no other number of sets.
    every = [*ARM_CACHES.values(), *X86_CACHES.values()]
    levels = [level for known in every for level in (known.first, known.second)]
    pages = [known.translation for known in every]
    assert all((known.pages // known.ways).bit_count() == 1 for known in pages)
    assert all((level.size // LINE // level.ways).bit_count() == 1 for level in levels)
    caches = Caches(Cache(1 << 15, 2), Cache(1 << 20, 16), Translation(64, 4, 7), 32, 16, 9)
    assert caches.plugin_arguments == "l1=256:2,l2=1024:16,pages=16:4"


@pytest.mark.smoke
def test_sizes_of_caches_are_this_machines(tmp_path: Path) -> None:
    def describe(place: int, level: str, kind: str, size: str, ways: str) -> None:
        folder = tmp_path / f"index{place}"
        folder.mkdir()
        named = {"level": level, "type": kind, "size": size, "ways_of_associativity": ways}
        for name, text in named.items():
            (folder / name).write_text(f"{text}\n")

    known = X86_CACHES["icelake-client"]
    assert as_on_this_machine(known, tmp_path) == known
    describe(0, "1", "Data", "32K", "8")
    describe(1, "1", "Instruction", "64K", "16")
    describe(2, "2", "Unified", "2048K", "16")
    describe(3, "3", "Unified", "32768K", "16")
    found = as_on_this_machine(known, tmp_path)
    assert (found.first, found.second) == (Cache(32 << 10, 8), Cache(2 << 20, 16))
    assert found.third is None and found.first_bytes == known.first_bytes
    # Sets that are no power of two, and what is no number.
    (tmp_path / "index2/size").write_text("1536K")
    (tmp_path / "index0/size").write_text("large")
    assert as_on_this_machine(known, tmp_path) == known


@pytest.mark.parametrize(
    ("stride", "following", "starting"),
    [(64, 512, 0), (256, 512, 0), (320, 0, 512), (4096, 0, 512)],
)
def test_lines_that_follow_others_are_told_from_those_that_start(
    emulator: Emulator, tmp_path: Path, stride: int, following: int, starting: int
) -> None:
    body = (
        r"ldr x9, [x1, #8]\n ldr x9, [x9]\n mov x10, #512\n"
        rf" 1: ldr x11, [x9]\n add x9, x9, #{stride}\n subs x10, x10, #1\n b.ne 1b\n"
        r" mov w0, #0\n ret"
    )
    kernel = _kernel(tmp_path, body)
    kernel = KernelObject(kernel.path, kernel.symbol, (((512 * stride // 4,), "float32"),))
    small = dataclasses.replace(ARM_CACHES["cortex-a72"], first=Cache(4096, 2))
    (count,) = count_kernels([kernel], "cortex-a72", caches=small)
    assert isinstance(count, KernelCount), count
    assert count.memory is not None
    assert abs(count.memory.following_lines - following) <= 24
    assert abs(count.memory.starting_lines - starting) <= 24


@pytest.mark.parametrize(("instruction", "dirty"), [("ldr", 0), ("str", 4096)])
def test_changed_lines_come_back_to_memory(
    emulator: Emulator, tmp_path: Path, instruction: str, dirty: int
) -> None:
    # Twice over 256 KiB, where the second level has 64: what the first pass changed has to leave.
    body = (
        r"mov x12, #2\n 2: ldr x9, [x1, #8]\n ldr x9, [x9]\n mov x10, #4096\n"
        rf" 1: {instruction} x11, [x9], #64\n subs x10, x10, #1\n b.ne 1b\n"
        r" subs x12, x12, #1\n b.ne 2b\n mov w0, #0\n ret"
    )
    kernel = _kernel(tmp_path, body)
    kernel = KernelObject(kernel.path, kernel.symbol, (((4096 * 16,), "float32"),))
    small = dataclasses.replace(ARM_CACHES["cortex-a72"], second=Cache(1 << 16, 16))
    (count,) = count_kernels([kernel], "cortex-a72", caches=small)
    assert isinstance(count, KernelCount), count
    assert count.memory is not None
    # The warming call changed as many lines as stay behind at the end.
    assert abs(count.memory.dirty_lines - 2 * dirty) <= 64


def test_an_unknown_core_is_the_users_mistake() -> None:
    with pytest.raises(UsageError, match="did you mean cortex-a72"):
        count_kernels([], "cortex-a-72")
