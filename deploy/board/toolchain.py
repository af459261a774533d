"""clang and lld from the ziglang package: no compiler needs to be installed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from shuffledeploy.model.errors import Failure


def zig() -> Path:
    """Return the zig executable itself: ``python -m ziglang`` would start a Python each time."""
    found = importlib.util.find_spec("ziglang")
    if found is None or found.origin is None:
        raise Failure("the package ziglang is missing; install it with: pip install ziglang")
    return Path(found.origin).parent / "zig"


def compile_c(
    source: Path, output: Path, flags: Sequence[str], others: Sequence[Path] = ()
) -> None:
    """Compile a C file with clang, warnings being errors.

    Parameters
    ----------
    source, output : Path
        The C file and what to write.
    flags : Sequence[str]
        What to make of it (``-c``, ``-shared``, ``-target``...).
    others : Sequence[Path]
        C files that belong to the same program.

    Raises
    ------
    Failure
        With the compiler's first error.
    """
    command = [str(zig()), "cc", "-O2", "-Wall", "-Wextra", "-Werror", "-fno-sanitize=all", *flags,
               str(source), *map(str, others), "-o", str(output)]  # fmt: skip
    # zig keeps a cache of its own: beside the output it can be written, and goes with it.
    own = {"ZIG_LOCAL_CACHE_DIR": str(output.parent / ".zig")}
    environment = {**os.environ, **own, "ZIG_GLOBAL_CACHE_DIR": str(output.parent / ".zig")}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error:" in line]
        raise Failure(f"cannot compile {source.name}: {lines[0] if lines else done.stderr[-300:]}")


# Where the kernel's code starts: whatever lies below belongs to the runner.
KERNEL_BASE = 0x1000000

_LAYOUT = f"""\
ENTRY(_start)
SECTIONS {{
  . = 0x400000;
  .runner : {{ *-runner.o(.text) }}
  helpers_begin = .;
  .helpers : {{ *(.text.helpers) }}
  . = {KERNEL_BASE:#x};
  .kernel : {{ *(.text .text.*) }}
  image_end = .;
  . = ALIGN(0x10000);
  .rodata : {{ *(.rodata .rodata.*) }}
  . = ALIGN(0x10000);
  .data : {{ *(.data .data.*) *(.bss .bss.*) *(COMMON) }}
  /DISCARD/ : {{ *(.eh_frame .debug_* .comment .note.*) }}
}}
"""


def write_layout(folder: Path) -> Path:
    """Write the linker script of :func:`link_static` into a folder."""
    script = folder / "layout.ld"
    script.write_text(_LAYOUT)
    return script


def link_static(runner: Path, kernel: Path | None, entry: str, output: Path) -> str | None:
    """Link the runner with one kernel's object.

    Parameters
    ----------
    runner : Path
        The compiled ``runner.o``; the linker script lies beside it.
    kernel : Path or None
        The kernel's relocatable object, of the runner's architecture.
    entry : str
        The symbol to call.
    output : Path
        The static executable.

    Returns
    -------
    str or None
        The linker's first complaint, if any (10 ms).
    """
    objects = [str(runner)] + ([str(kernel)] if kernel else [])
    command = [str(zig()), "ld.lld", "-static", "--gc-sections", "-u", entry,
               f"--defsym=kernel_entry={entry}", "-T", str(runner.parent / "layout.ld"),
               *objects, "-o", str(output)]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode == 0:
        return None
    first = (done.stderr.strip().splitlines() or ["no reason given"])[0]
    return first.removeprefix("ld.lld: ").removeprefix("error: ")
