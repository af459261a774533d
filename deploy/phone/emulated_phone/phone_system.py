"""The files of an emulated phone: a root without glibc, and the command that runs what is in it."""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from shuffledeploy.deploy.board import apt_tree
from shuffledeploy.deploy.board.guests import cpuinfo, find_core
from shuffledeploy.deploy.board.places import built_once, recipe_hash
from shuffledeploy.deploy.board.qemu import Emulator, ensure_emulator
from shuffledeploy.deploy.phone.emulated_phone.phone_traits import PhoneTraits
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.scratch import scratch_folder

#: Where a phone's shell may write and execute.
WRITABLE = "/data/local/tmp"
#: Of this emulator: where the counting plugin writes, and the property that tells.
COUNTS = f"{WRITABLE}/.counts"
COUNTS_PROPERTY = "ro.shuffledeploy.counts"
#: Android's user of adb's shell.
_SHELL_USER = 2000
_MODEL = "Emulated phone"
# Those of busybox that Android's toybox has too.
_APPLETS = (
    "sh", "cat", "chmod", "cp", "date", "dirname", "echo", "env", "false", "head", "id", "kill",
    "ln", "ls", "mkdir", "mktemp", "mv", "nproc", "ps", "pwd", "readlink", "rm", "rmdir", "sed",
    "sleep", "stat", "sync", "tail", "test", "touch", "tr", "true", "uname", "wc",
)  # fmt: skip
_GETPROP = """\
#!/system/bin/sh
[ -z "$1" ] && exec cat /system/build.prop
while IFS='=' read -r name value; do
  [ "$name" = "$1" ] && echo "$value" && exit 0
done < /system/build.prop
echo "$2"
"""
_DF = """\
#!/system/bin/sh
echo "Filesystem       1K-blocks     Used Available Use% Mounted on"
echo "/dev/block/dm-1  16777216 $((16777216 - {room})) {room}  50% /data"
"""
# What made the shell run is no part of the phone; its df must win over busybox's own.
_PREPARE = """\
unset LD_LIBRARY_PATH PROOT_TMP_DIR PROOT_FORCE_FOREIGN_BINARY
df() { /system/bin/df "$@"; }
"""
# In kHz: the second half of the cores is the faster one.
_CLOCKS = (1_800_000, 2_840_000)


@dataclass(frozen=True)
class PhoneFiles:
    """What every emulated phone is made of.

    Attributes
    ----------
    emulator : Emulator
        QEMU and the counting plugin.
    proot : Path
        Changes the root without being root.
    libraries : str
        Value of ``LD_LIBRARY_PATH`` for both.
    busybox : Path
        A static one for aarch64.
    """

    emulator: Emulator
    proot: Path
    libraries: str
    busybox: Path


def ensure_phone_files() -> PhoneFiles:
    """Return what phones are made of, fetching it on first use (about 5 s, 3 MB).

    Raises
    ------
    Failure
        When a package cannot be fetched, or this machine has no apt.
    """
    emulator = ensure_emulator()
    recipe = recipe_hash(Path(apt_tree.__file__), Path(__file__), platform.machine())
    folder = built_once(f"phone-{recipe}", _fetch)
    host = folder / "host/usr"
    libraries = ":".join(filter(None, (apt_tree.library_path(host), emulator.libraries)))
    return PhoneFiles(emulator, host / "bin/proot", libraries, folder / "guest/bin/busybox")


def _fetch(folder: Path) -> None:
    """Fetch proot for this machine, and busybox for the phone."""
    with scratch_folder("shuffledeploy-apt-") as scratch:
        tree = apt_tree.open_tree(scratch / "host", apt_tree.host_architecture())
        apt_tree.unpack(tree, ["proot"], folder / "host")
        if apt_tree.lacks_libraries(folder / "host/usr/bin/proot"):
            apt_tree.unpack(tree, apt_tree.dependencies(tree, "proot"), folder / "host")
        guest = apt_tree.open_tree(scratch / "guest", "arm64")
        apt_tree.unpack(guest, ["busybox-static"], folder / "guest")
    for unused in ("host/usr/share", "guest/usr"):
        shutil.rmtree(folder / unused, ignore_errors=True)
    if not (folder / "guest/bin/busybox").is_file():
        raise Failure("the package busybox-static of this release has no bin/busybox")


def make_root(files: PhoneFiles, root: Path, traits: PhoneTraits) -> None:
    """Write the root of one phone (2 MB)."""
    commands = root / "system/bin"
    for folder in (commands, root / WRITABLE.lstrip("/"), root / "proc", root / "dev"):
        folder.mkdir(parents=True)
    shutil.copy(files.busybox, commands / "busybox")
    for applet in _APPLETS:
        (commands / applet).symlink_to("busybox")
    scripts = {"getprop": _GETPROP, "df": _DF.format(room=traits.room_kib)}
    for name, text in scripts.items():
        (commands / name).write_text(text)
        (commands / name).chmod(0o755)
    properties = _properties(traits)
    lines = [f"{name}={value}\n" for name, value in properties.items()]
    (root / "system/build.prop").write_text("".join(lines))
    (root / "cpuinfo").write_text(cpuinfo(find_core(traits.core)))
    _write_clocks(root / "sys")


def _properties(traits: PhoneTraits) -> dict[str, str]:
    """Give what ``getprop`` tells; an emulator says of itself that it is one."""
    return {
        "ro.product.cpu.abi": traits.abi,
        "ro.product.manufacturer": "shuffledeploy",
        "ro.product.model": _MODEL,
        "ro.product.name": "emulated",
        "ro.product.device": "emulated",
        "ro.build.version.release": "14",
        "ro.build.version.sdk": "34",
        "ro.boot.qemu": "1",
        "ro.kernel.qemu": "1",
        COUNTS_PROPERTY: COUNTS,
    }


def banner(traits: PhoneTraits) -> dict[str, str]:
    """Give what a phone tells a client as it connects."""
    told = _properties(traits)
    return {name: told[name] for name in ("ro.product.name", "ro.product.model",
                                          "ro.product.device")}  # fmt: skip


def _write_clocks(system: Path) -> None:
    """Write the clocks and the temperature of a phone with slow cores and fast ones."""
    cores = os.cpu_count() or 1
    zone = "class/thermal/thermal_zone0"
    texts = {f"{zone}/type": "cpu-0-0", f"{zone}/temp": "35000"}
    for core in range(cores):
        clock = str(_CLOCKS[2 * core >= cores - 1])
        frequencies = f"devices/system/cpu/cpu{core}/cpufreq"
        texts[f"{frequencies}/cpuinfo_max_freq"] = clock
        texts[f"{frequencies}/scaling_cur_freq"] = clock
    for path, text in texts.items():
        (system / path).parent.mkdir(parents=True, exist_ok=True)
        (system / path).write_text(text + "\n")


def shell_command(files: PhoneFiles, root: Path, traits: PhoneTraits, line: str) -> list[str]:
    """Return the command that runs a line in a phone's shell, as adb's shell user.

    The kernel, its processes and its ports are this machine's: this is no sandbox.

    Parameters
    ----------
    files, root, traits
        The phone.
    line : str
        As a shell takes it; empty for a shell that reads its lines.
    """
    arguments = ["/system/bin/sh", *(["-c", _PREPARE + line] if line else [])]
    # QEMU itself sees the phone's files, and this machine's below the folder that proot adds.
    plugin = f"-plugin /host-rootfs{files.emulator.plugin},out={COUNTS}"
    qemu = f"{files.emulator.qemu} {plugin} -cpu {find_core(traits.core).qemu}"
    return [
        str(files.proot), "-r", str(root), "-q", qemu, "-b", "/proc", "-b", "/dev",
        "-b", f"{root}/cpuinfo:/proc/cpuinfo", "-i", f"{_SHELL_USER}:{_SHELL_USER}", "-w", "/",
        *arguments,
    ]  # fmt: skip


def guest_environment(files: PhoneFiles) -> dict[str, str]:
    """Return the environment of a phone's shell, and of the two programs that make it run."""
    return {
        "LD_LIBRARY_PATH": files.libraries,
        "PATH": "/system/bin",
        "HOME": "/",
        "TMPDIR": WRITABLE,
        "ANDROID_ROOT": "/system",
        "ANDROID_DATA": "/data",
        # Of this machine, not of the phone.
        "PROOT_TMP_DIR": "/tmp",
        # QEMU even where this machine could run the phone's programs itself: it counts.
        "PROOT_FORCE_FOREIGN_BINARY": "1",
    }
