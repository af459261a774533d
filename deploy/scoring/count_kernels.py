"""Counts the instructions of single kernels on an emulated core, for tuning: no Python, no RPC."""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from shuffledeploy.compiler.tuning.score import KernelObject
from shuffledeploy.deploy.board.guests import Guest, guest_of
from shuffledeploy.deploy.board.qemu import Emulator, ensure_emulator
from shuffledeploy.deploy.board.toolchain import KERNEL_BASE, link_static
from shuffledeploy.deploy.estimate.caches import Caches
from shuffledeploy.deploy.estimate.code_images import Image, read_image
from shuffledeploy.deploy.estimate.executed_blocks import (
    Block,
    MemoryEvents,
    instructions_in,
    memory_events_of,
    read_blocks,
)
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.scratch import scratch_folder

# DLPack's type codes, by the name's letters.
_TYPE_CODES = {"int": 0, "uint": 1, "float": 2, "bfloat": 4}


@dataclass(frozen=True)
class KernelCount:
    """What one warmed call of a kernel executed. Exact, and the same on every run.

    Attributes
    ----------
    instructions : int
        Within the kernel's own code.
    helper_instructions : int
        Within ``memcpy``, ``memset`` and workspace allocation called by the kernel: the runner's
        plain versions, not those of a C library.
    blocks : tuple[Block, ...]
        The translation blocks of both; the kernel's code starts at ``KERNEL_BASE``.
    image : Image
        The code that ran.
    """

    instructions: int
    helper_instructions: int
    blocks: tuple[Block, ...] = field(repr=False)
    image: Image = field(repr=False, compare=False)

    @property
    def total(self) -> int:
        """Instructions of the kernel and its helpers."""
        return self.instructions + self.helper_instructions

    @property
    def memory(self) -> MemoryEvents | None:
        """What loads and stores waited for: simulated; None where no caches were given."""
        return memory_events_of(self.blocks)


def count_kernels(
    kernels: Sequence[KernelObject],
    core: str | Guest,
    *,
    timeout_s: float = 10.0,
    workers: int = 1,
    warm: bool = True,
    caches: Caches | None = None,
) -> list[KernelCount | str]:
    """Count the instructions that one warmed call of each kernel executes.

    Each kernel is linked with a small freestanding runner and run in an emulator process of its
    own, so one that crashes or hangs takes nothing with it.

    Parameters
    ----------
    kernels : Sequence[KernelObject]
        The kernels.
    core : str or Guest
        The core to emulate, such as ``cortex-a72``. It gates which instructions are legal.
    timeout_s : float
        Seconds that one kernel may take: two emulated calls.
    workers : int
        How many emulators run at once. Counts do not depend on it.
    warm : bool
        Call each kernel once before the call that is counted. A kernel without state, as all of
        TVM's are, counts the same without, in half the time.
    caches : Caches, optional
        Simulate these too: the emulation takes up to twice as long.

    Returns
    -------
    list[KernelCount or str]
        In the order given: the counts, or in one line why there are none.

    Raises
    ------
    UsageError
        When the core cannot be emulated.
    Failure
        When the emulator cannot be built.
    """
    guest = guest_of(core) if isinstance(core, str) else core
    emulator = ensure_emulator(guest.architecture)

    def count(kernel: KernelObject) -> KernelCount | str:
        with scratch_folder("shuffledeploy-kernel-") as scratch:
            plugin = f"{emulator.plugin},out={scratch}/counts"
            if caches is not None:
                plugin += f",{caches.plugin_arguments}"
            command = [str(emulator.qemu), "-plugin", plugin, "-cpu", guest.model]
            return _count_one(emulator, kernel, command, timeout_s, warm, scratch)

    with ThreadPoolExecutor(max_workers=max(1, workers)) as pool:
        return list(pool.map(count, kernels))


def _count_one(
    emulator: Emulator,
    kernel: KernelObject,
    command: Sequence[str],
    timeout_s: float,
    warm: bool,
    scratch: Path,
) -> KernelCount | str:
    """Link, run and read the counts of one kernel."""
    tensors = [_tensor_argument(shape, dtype) for shape, dtype in kernel.arguments]
    program = scratch / "kernel"
    complaint = link_static(emulator.runner, kernel.path, kernel.symbol, program)
    if complaint:
        return f"cannot be linked: {complaint}"
    try:
        done = subprocess.run(
            [*command, str(program), str(int(warm)), *tensors], check=False, capture_output=True,
            timeout=timeout_s, env=emulator.environment(),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"still running after {timeout_s:g} s"
    if done.returncode:
        return _reason(done.returncode, done.stderr.decode(errors="replace"))
    try:
        report = next(scratch.glob("counts.*")).read_text()
        blocks = read_blocks(report)
    except (StopIteration, ValueError):
        return "the emulator wrote no counts"
    own = instructions_in(block for block in blocks if block.address >= KERNEL_BASE)
    return KernelCount(own, instructions_in(blocks) - own, blocks, read_image(program))


def _tensor_argument(shape: Sequence[int], dtype: str) -> str:
    """Write a tensor as the runner reads it: ``CODE.BITS:DIM,DIM``."""
    found = re.fullmatch(r"([a-z]+)(\d+)", {"bool": "uint8"}.get(dtype, dtype))
    if not found or found[1] not in _TYPE_CODES or found[2] not in ("8", "16", "32", "64"):
        raise UsageError(f"a kernel's tensor has data type '{dtype}', which cannot be emulated")
    return f"{_TYPE_CODES[found[1]]}.{found[2]}:{','.join(map(str, shape))}"


def _reason(status: int, messages: str) -> str:
    """Say in one line why a run failed."""
    lines = [line for line in messages.splitlines() if line and not line.startswith("qemu:")]
    said = f": {lines[0]}" if lines else ""
    if status == 3:
        return f"the kernel returned an error{said}"
    # QEMU ends by the guest's own signal; a shell would say 128 + signal.
    number = -status if status < 0 else status - 128
    if number in signal.valid_signals() and number > 0:
        name = signal.Signals(number).name
        hint = " (an instruction that this core does not have)" if name == "SIGILL" else ""
        return f"crashed with {name}{hint}"
    return f"exit status {status}{said}"
