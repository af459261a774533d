"""Second stage of the emulated board: what a program sees of the core that QEMU is to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from shuffledeploy.compiler import cores
from shuffledeploy.compiler.cores import CORES, ArmCore
from shuffledeploy.deploy.board import guests
from shuffledeploy.deploy.board.guests import cpuinfo, main_id_register
from shuffledeploy.deploy.board.places import built_once, recipe_hash
from shuffledeploy.deploy.board.qemu import Emulator


def ensure_root(core: ArmCore) -> Path:
    """Return the root of a board with this core: its ``/proc/cpuinfo``, its ``/sys``."""
    sources = (Path(guests.__file__), Path(cores.__file__), Path(__file__))
    return built_once(f"cores-{recipe_hash(*sources)}", _build) / core.name


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
    """Write what shows one core into a root."""
    cpus = root / "sys/devices/system/cpu"
    files = {
        root / "proc/cpuinfo": cpuinfo(core),
        **{cpus / name: "0\n" for name in ("present", "possible", "online")},
        cpus / "kernel_max": "0\n",
        cpus / "cpu0/online": "1\n",
        cpus / "cpu0/topology/core_id": "0\n",
        cpus / "cpu0/topology/physical_package_id": "0\n",
        cpus / "cpu0/topology/core_siblings_list": "0\n",
        cpus / "cpu0/topology/thread_siblings_list": "0\n",
        cpus / "cpu0/cpufreq/cpuinfo_max_freq": "1500000\n",
        cpus / "cpu0/cpufreq/scaling_cur_freq": "1500000\n",
        cpus / "cpu0/regs/identification/midr_el1": f"{main_id_register(core):#018x}\n",
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
