"""The runner's layout in memory, and how a kernel is linked to it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from shuffledeploy.compiler.native_tools import zig

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
