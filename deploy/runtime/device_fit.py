"""Whether a library can run on a device, and which device is taken where none is named."""

from __future__ import annotations

import platform
import re

from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.compiler.cores import CORES, DEFAULT_CORE
from shuffledeploy.compiler.processor_features import cpu_features
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.deploy.devices.device_names import DeviceName, parse_device_name
from shuffledeploy.deploy.devices.opening import Device
from shuffledeploy.model.errors import UsageError


def default_device(needs: Manifest | CompileTarget) -> str:
    """Name the device to run on where the user named none.

    This machine where the library fits it, else an emulated board with the core it is built for.

    Raises
    ------
    UsageError
        If it fits neither.
    """
    try:
        check_cpu(needs, "local", platform.machine(), cpu_features())
        return "local"
    except UsageError:
        pass
    if needs.architecture == "aarch64":
        # Base ARMv8.0 code, such as "generic", runs on every core.
        if needs.cpu in CORES:
            return f"emulated:{needs.cpu}"
        if set(needs.features) <= set(CORES[DEFAULT_CORE].features.split()):
            return f"emulated:{DEFAULT_CORE}"
    raise UsageError(
        f"the library is for {needs.cpu} ({needs.architecture}), which is not this machine"
        " and cannot be emulated: name a board with --device"
    )


def check_cpu(
    needs: Manifest | CompileTarget,
    device: str,
    architecture: str | None,
    features: frozenset[str] | None,
) -> tuple[str, ...]:
    """Compare the processor with what the library is built for; None is what cannot be known.

    Returns
    -------
    tuple of str
        What could not be checked.

    Raises
    ------
    UsageError
        If the library cannot run there.
    """
    unchecked = []
    if architecture is None:
        unchecked.append("architecture")
    elif architecture != needs.architecture:
        raise UsageError(
            f"the library is built for {needs.architecture} ({needs.cpu}), and {device} is"
            f" {architecture}: compile for it with --target, or name another --device"
        )
    if features is None:
        unchecked.append("processor features " + ", ".join(needs.features))
    elif missing := sorted(set(needs.features) - features):
        raise UsageError(
            f"the library is built for {needs.cpu}, and {device} lacks {', '.join(missing)}:"
            " compile for its core with --target, or name another --device"
        )
    return tuple(unchecked)


def fitting_device(needs: Manifest, name: str | None) -> DeviceName:
    """Take the name of a library's device apart, and refuse what the library cannot run on.

    Parameters
    ----------
    needs : Manifest
        Of the library. Plain ``emulated`` is the core that it is built for.
    name : str, optional
        Of the device; the default one if nothing is said.

    Raises
    ------
    UsageError
        If the library cannot run there, as far as the name tells: a board takes seconds to start.
    """
    core = needs.cpu if needs.cpu in CORES else DEFAULT_CORE
    device = parse_device_name(name or default_device(needs), default_core=core)
    if device.kind == "local":
        check_cpu(needs, device.text, platform.machine(), cpu_features() or None)
    elif device.kind == "emulated":
        check_cpu(needs, device.text, "aarch64", frozenset(CORES[device.core].features.split()))
    elif device.kind == "adb":
        # A board by ssh may be of this machine's kind.
        check_cpu(needs, device.text, "aarch64", None)
    return device


def check_fits(manifest: Manifest, device: Device) -> tuple[str, ...]:
    """Check that a library can run on a device, before anything is sent there.

    Returns
    -------
    tuple of str
        What could not be checked: a stock RPC server does not tell everything.

    Raises
    ------
    UsageError
        If its architecture, its features or its TVM runtime are not what the library needs.
    """
    told = device.information
    features = None if told.features is None else frozenset(told.features)
    if parse_device_name(device.name).kind == "local":
        # What it tells are LLVM's names; a manifest holds those of /proc/cpuinfo.
        features = cpu_features() or None
    unchecked = list(check_cpu(manifest, device.name, told.architecture, features))
    built_with = manifest.versions.get("apache-tvm")
    if built_with is None or told.tvm_version is None:
        unchecked.append(f"TVM runtime {built_with or 'of unknown version'}")
    elif _release(built_with) != _release(told.tvm_version):
        raise UsageError(
            f"the library is built with TVM {built_with}, and {device.name} runs"
            f" {told.tvm_version}: install apache-tvm=={built_with} there, or compile again"
        )
    if device.is_emulated is None:
        unchecked.append("whether it is emulated")
    return tuple(unchecked)


def _release(version: str) -> str:
    """Drop what follows the release number: a post release has the same runtime."""
    found = re.match(r"\d+(\.\d+)*", version)
    return found.group() if found else version
