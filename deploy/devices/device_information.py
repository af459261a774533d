"""What a device can tell of itself: one with our server everything, a stock RPC server little."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
import tvm
from tvm import rpc

from shuffledeploy.compiler.bundle.elf import machine_of
from shuffledeploy.compiler.cores import CORES, core_of_part
from shuffledeploy.deploy.devices.tvm_rpc_edges import DESCRIBE, is_remote
from shuffledeploy.model.errors import Failure
from shuffledeploy.model.printable import printable_line

_MIDR = "/sys/devices/system/cpu/cpu0/regs/identification/midr_el1"
_ARM = 0x41


@dataclass(frozen=True)
class DeviceInformation:
    """What is known of a device; None where it cannot be told.

    Attributes
    ----------
    tvm_version : str or None
        Version of TVM on the device.
    architecture : str or None
        ``aarch64``, ``x86_64``...
    cpu : str or None
        The core, as LLVM names it.
    features : tuple[str, ...] or None
        Instruction set features: as in ``/proc/cpuinfo`` where our server runs, as LLVM names them
        on this machine.
    is_emulated : bool or None
        Whether its times mean nothing.
    can_count : bool
        Whether it counts instructions.
    pinned_core : int or None
        The number of the core on which sessions run; None where they run on any.
    name : str or None
        What the device calls itself.
    """

    tvm_version: str | None
    architecture: str | None
    cpu: str | None
    features: tuple[str, ...] | None
    is_emulated: bool | None
    can_count: bool = False
    pinned_core: int | None = None
    name: str | None = None


def ask_local() -> DeviceInformation:
    """Describe this machine."""
    cpu = _llvm("target.llvm_get_system_cpu")
    triple = _llvm("target.llvm_get_system_triple")
    features: tuple[str, ...] | None = None
    if cpu and triple:
        target = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu})
        features = tuple(
            sorted(map(str, tvm.get_global_func("target.llvm_get_cpu_features")(target)))
        )
    return DeviceInformation(tvm.__version__, platform.machine(), cpu, features, False)


def ask_native(session: rpc.RPCSession, core: str | None) -> DeviceInformation:
    """Ask a device that runs our server; ``core`` is what it was started with, if that is known."""
    return read_description(str(session.get_function(DESCRIBE)()), core)


_Word = Annotated[str, msgspec.Meta(pattern=r"^[\w.+-]{1,60}$")]


class _Description(msgspec.Struct, forbid_unknown_fields=True):
    """What our server says of its device (`deploy/on_device/device_description.h`)."""

    server: Literal["native"]
    tvm_version: _Word
    architecture: _Word
    features: Annotated[list[_Word], msgspec.Meta(max_length=500)]
    part: Annotated[str, msgspec.Meta(pattern=r"^(0x[0-9a-fA-F]{1,8})?$")]
    emulated: bool
    counts: bool
    pid: int
    core: Annotated[int, msgspec.Meta(ge=0, lt=1024)] | None
    name: Annotated[str, msgspec.Meta(pattern=r"^[ -~]{1,95}$")] | None


def read_description(text: str, core: str | None) -> DeviceInformation:
    """Read what our server says of its device; ``core`` is what it is known to be.

    Raises
    ------
    Failure
        If that is not what such a server says.
    """
    try:
        told = msgspec.json.decode(text, type=_Description)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Failure(f"what the board says of itself cannot be: {error}") from error
    if core is None:
        core = core_of_part(told.part)
    return DeviceInformation(
        told.tvm_version, told.architecture, core, tuple(told.features), told.emulated,
        told.counts, told.core, told.name,
    )  # fmt: skip


def ask_stock(session: rpc.RPCSession) -> DeviceInformation:
    """Find out what a stock RPC server lets one ask.

    It answers neither its version nor its features, nor whether it is emulated. Its architecture
    and core come from LLVM where its TVM is a full one, otherwise from files: a program's ELF
    header, the core's MIDR register.
    """
    triple = _remote_text(session, "target.llvm_get_system_triple")
    architecture = triple.split("-")[0] if triple else None
    if architecture is None:
        architecture = machine_of(_download(session, "/usr/bin/env")[:20])
    cpu = _core_of_midr(_download(session, _MIDR))
    if cpu is None:
        cpu = _remote_text(session, "target.llvm_get_system_cpu")
    return DeviceInformation(None, architecture, cpu, None, None)


def _core_of_midr(content: bytes) -> str | None:
    """Return the core that a MIDR_EL1 register names (text as sysfs shows it)."""
    text = content.split(b"\0")[0].strip()
    try:
        value = int(text, 16)
    except ValueError:
        return None
    part = value >> 4 & 0xFFF
    known = [core.name for core in CORES.values() if core.part == part]
    return known[0] if known and value >> 24 == _ARM else None


def _llvm(function: str) -> str | None:
    found = tvm.get_global_func(function, allow_missing=True)
    return str(found()) if found else None


def _remote_text(session: rpc.RPCSession, function: str) -> str | None:
    try:
        return printable_line(session.get_function(function)())
    except AttributeError:
        return None


def _download(session: rpc.RPCSession, path: str) -> bytes:
    """Return a file of the device: the server joins paths, and an absolute one stays as it is."""
    try:
        return bytes(session.download(path))
    except (RuntimeError, TypeError) as error:
        if is_remote(error) or isinstance(error, TypeError):
            return b""
        raise
