"""Second stage of the emulated board: what a program sees of the core that QEMU is to be."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from shuffledeploy.compiler.cores import CORES, ArmCore
from shuffledeploy.deploy.board.guests import cache_files, cpuinfo, main_id_register
from shuffledeploy.deploy.board.places import built_once, recipe_hash
from shuffledeploy.deploy.board.qemu import Emulator

_CPUS = "sys/devices/system/cpu"
# How many a core has; a third level is a board's, and where guests run this machine may have one.
_CACHES = 3
_CACHE_FACTS = (
    "id", "level", "type", "size", "coherency_line_size", "ways_of_associativity",
    "number_of_sets", "shared_cpu_list", "shared_cpu_map",
)  # fmt: skip


def ensure_root(core: ArmCore) -> Path:
    """Return the root of a board with this core: its ``/proc/cpuinfo``, its ``/sys``."""
    return built_once(f"cores-{recipe_hash(*shown_of_cores())}", _build) / core.name


def shown_of_cores() -> Iterator[str | Path]:
    """Give all that roots of boards show of their cores, as a recipe has it."""
    yield Path(__file__)
    yield str(_places())
    for core in CORES.values():
        for path, text in _files(core).items():
            yield f"{core.name} {path} {text}"


def guest_command(
    emulator: Emulator, core: ArmCore, program: Sequence[str], *, root: Path,
    counts: Path | None = None, settings: Mapping[str, str] | None = None,
) -> list[str]:  # fmt: skip
    """Return the command that runs a program on an emulated core.

    Parameters
    ----------
    emulator, core
        The emulator, the core.
    program : sequence of str
        The program of the core's architecture, and its arguments.
    root : Path
        Where the program finds what begins with ``/``, if it is there.
    counts : Path, optional
        Where the counting plugin writes; without it nothing is counted.
    settings : mapping of str, optional
        Environment variables of the program.
    """
    return [
        str(emulator.qemu), *(["-plugin", f"{emulator.plugin},out={counts}"] if counts else []),
        "-cpu", core.qemu, "-L", str(root), "-U", "LD_LIBRARY_PATH",
        *(part for item in (settings or {}).items() for part in ("-E", "=".join(item))),
        *program,
    ]  # fmt: skip


def _build(folder: Path) -> None:
    """Fill the folder of all cores' roots."""
    for core in CORES.values():
        write_core(folder / core.name, core)


def write_core(root: Path, core: ArmCore) -> None:
    """Write what shows one core, and those of its cluster, into a root."""
    for path, text in _files(core).items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    for place in range(core.sharing):
        _hide(root / f"{_CPUS}/cpu{place}/cache/index{_CACHES}", _CACHE_FACTS)
    # A guest that asks on which processor it runs is told this machine's number.
    for place in range(core.sharing, _places()):
        (root / f"{_CPUS}/cpu{place}").symlink_to("cpu0")


def _places() -> int:
    """Return how many processors this machine may have."""
    return os.sysconf("SC_NPROCESSORS_CONF")


def _files(core: ArmCore) -> dict[str, str]:
    """Give the files that show a cluster of a core: paths in its root, texts."""
    last = core.sharing - 1
    all_ = f"0-{last}\n" if last else "0\n"
    files = {
        "proc/cpuinfo": cpuinfo(core),
        **{f"{_CPUS}/{name}": all_ for name in ("present", "possible", "online")},
        f"{_CPUS}/kernel_max": f"{last}\n",
    }
    for place in range(core.sharing):
        cpu = f"{_CPUS}/cpu{place}"
        files |= {
            f"{cpu}/online": "1\n",
            f"{cpu}/topology/core_id": f"{place}\n",
            f"{cpu}/topology/physical_package_id": "0\n",
            f"{cpu}/topology/core_siblings_list": all_,
            f"{cpu}/topology/core_siblings": f"{(1 << core.sharing) - 1:x}\n",
            f"{cpu}/topology/thread_siblings_list": f"{place}\n",
            f"{cpu}/topology/thread_siblings": f"{1 << place:x}\n",
            f"{cpu}/cpufreq/cpuinfo_max_freq": "1500000\n",
            f"{cpu}/cpufreq/scaling_cur_freq": "1500000\n",
            f"{cpu}/regs/identification/midr_el1": f"{main_id_register(core):#018x}\n",
            **{f"{cpu}/cache/{path}": text for path, text in cache_files(core, place).items()},
        }
    return files


def _hide(folder: Path, names: Iterable[str]) -> None:
    """Keep guests from files of this machine: they find sockets there, which cannot be opened.

    QEMU takes a path from this machine where the root has nothing of that name.
    """
    folder.mkdir(parents=True)
    for name in names:
        # A file system without sockets shows what is there.
        with contextlib.suppress(OSError):
            os.mknod(folder / name, stat.S_IFSOCK | 0o444)
