"""Where programs run: this machine, an emulated core, a phone, a board behind ssh."""

from __future__ import annotations

import platform
import shlex
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.deploy.board.guests import find_core
from shuffledeploy.deploy.board.qemu import ensure_emulator
from shuffledeploy.deploy.board.sysroot import ensure_root, guest_command
from shuffledeploy.deploy.devices.device_names import DeviceName
from shuffledeploy.deploy.devices.reached_devices import host_of
from shuffledeploy.deploy.remote.device_folder import device_folder
from shuffledeploy.deploy.remote.remote_host import HostTraits, RemoteHost
from shuffledeploy.deploy.runtime.device_fit import check_cpu
from shuffledeploy.deploy.runtime.latency import refuse_times
from shuffledeploy.model.errors import Failure, UsageError
from shuffledeploy.model.printable import printable_line
from shuffledeploy.model.scratch import scratch_folder

# A thousand inferences of the largest network of the zoo on a slow core.
_RUN_S = 600.0
_MOST_FEATURES = 500


def takes_programs(place: DeviceName) -> bool:
    """Whether a program can be run on a device: TVM's RPC alone only loads libraries."""
    return place.kind in ("local", "emulated", "adb", "ssh")


def require_takes_programs(place: DeviceName) -> None:
    """Refuse a device that no program can be run on.

    Raises
    ------
    UsageError
        If it is one.
    """
    if not takes_programs(place):
        raise UsageError(
            f"{place.text} takes no programs: they run on local, emulated, adb and ssh devices"
        )


def run_program(
    place: DeviceName, manifest: Manifest, program: Path, reference: Path, options: Sequence[str]
) -> str:
    """Run the runner somewhere, and give what it printed.

    Parameters
    ----------
    place : DeviceName
        Of kind ``local``, ``emulated``, ``adb`` or ``ssh``.
    manifest : Manifest
        Of the bundle that it was made of.
    program, reference : Path
        The runner and what it compares with, alone in one folder.
    options : sequence of str
        What it is asked for.

    Raises
    ------
    UsageError
        If the place takes no programs, or lacks what the program was built for.
    Failure
        If it is gone, has no room, or the program fails there: with its last words.
    """
    words = [f"./{program.name}", "--reference", reference.name, *options]
    if place.kind == "emulated":
        core = find_core(place.core)
        asked = [*words, "--emulated", "--core", "any"]
        emulator = ensure_emulator()
        command = guest_command(emulator, core, asked, root=ensure_root(core))
        return _answer(place.text, command, program.parent, emulator.environment())
    require_takes_programs(place)
    if place.kind == "local":
        return _answer(place.text, words, program.parent)
    host = host_of(place)
    traits = host.traits()
    check_cpu(manifest, host.name, traits.architecture, _features(host))
    told = ["--emulated"] if traits.is_emulated else []
    return _answer_of(host, program.parent, [*words, *told])


def run_on_silicon(
    place: DeviceName, build: Callable[[str, Path], None], options: Sequence[str]
) -> str:
    """Run a program on a device that is really there, and give what it printed.

    Parameters
    ----------
    place : DeviceName
        Of kind ``local``, ``adb`` or ``ssh``.
    build : Callable
        Given an architecture and a path, writes the program there.
    options : sequence of str
        What it is asked for.

    Raises
    ------
    UsageError
        If the place takes no programs, or is emulated.
    Failure
        If it is gone, has no room, or the program fails there: with its last words.
    """
    require_takes_programs(place)
    if place.kind == "emulated":
        raise refuse_times(place.text)
    host = None if place.kind == "local" else host_of(place)
    traits = host.traits() if host else HostTraits(platform.machine())
    if traits.is_emulated:
        raise refuse_times(place.text)
    with scratch_folder("shuffledeploy-run-") as folder:
        program = folder / "program"
        build(traits.architecture, program)
        words = [f"./{program.name}", *options]
        return _answer_of(host, folder, words) if host else _answer(place.text, words, folder)


def _answer(
    name: str, command: Sequence[str], folder: Path, environment: dict[str, str] | None = None
) -> str:
    """Run it on this machine."""
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=_RUN_S,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise Failure(f"{name}: the program did not end within {_RUN_S:.0f} s") from error
    except OSError as error:
        raise Failure(f"{name}: the program cannot be started: {error.strerror}") from error
    _require_success(name, done.returncode, done.stderr)
    return done.stdout


def _answer_of(host: RemoteHost, files: Path, words: Sequence[str]) -> str:
    """Send it to a device with a shell, run it there and remove it."""
    size_kib = -(-sum(file.stat().st_size for file in files.iterdir()) // 1024)
    with device_folder(host, "runner", size_kib) as folder:
        host.push(files, folder)
        line = f"cd {folder} && chmod 755 {words[0]} && {shlex.join(words)}"
        answer = host.shell(line, _RUN_S)
    _require_success(host.name, answer.status, answer.errors or answer.output)
    return answer.output


def _features(host: RemoteHost) -> frozenset[str] | None:
    """Ask a device which features its processor has; None where it does not tell."""
    told = host.shell("grep -m 1 -E '^(Features|flags)' /proc/cpuinfo").output
    _, _, features = told.partition(":")
    return frozenset(features.split()[:_MOST_FEATURES]) or None


def _require_success(name: str, status: int, said: str) -> None:
    if status:
        lines = said.strip().splitlines()
        reason = printable_line(lines[-1]) if lines else f"exit status {status}"
        raise Failure(f"{name}: the program failed: {reason}")
