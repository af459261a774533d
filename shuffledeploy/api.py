"""What the commands do, for a program or a notebook; nothing is printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from shuffledeploy.compiler.bundle.folder import Bundle, load_bundle
from shuffledeploy.compiler.ir.memory_layout import PRECISIONS
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.folders import records_folder
from shuffledeploy.open_bundles import OpenBundle

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram

    from shuffledeploy.compiler.tuning.outcome import Outcome
    from shuffledeploy.deploy.runtime.parity import Parity

    Program: TypeAlias = torch.nn.Module | ExportedProgram | str | Path

__all__ = ["OpenBundle", "check_parity", "compile", "load_bundle", "open_bundle", "tune"]

#: Told in a line what is being done.
Progress = Callable[[str], None]


def compile(  # noqa: PLR0913 - all but three by name
    program: Program,
    example_inputs: Sequence[torch.Tensor] = (),
    target: str = "arm",
    *,
    output: str | Path | None = None,
    name: str | None = None,
    standalone: str | None = None,
    precision: str = "float32",
    threads: int = 1,
    calibrate: str | Path | None = None,
    keep_float32: Sequence[str] = (),
    progress: Progress = lambda _: None,
) -> Bundle:
    """Compile a network with the tuning records that are at hand.

    Parameters
    ----------
    program : torch.nn.Module, ExportedProgram, str or Path
        A module in evaluation mode, an exported program, or the file of one (``.pt2``).
    example_inputs : sequence of torch.Tensor
        For a module: inputs on the CPU of the shapes that it is to be compiled for.
    target : str
        As `compile/tune.py --list-targets` shows them; ``arm`` is a Cortex-A72, ``host`` this
        machine.
    output : str or Path, optional
        The bundle's folder; ``build/bundles/NAME-TARGET`` if nothing is said.
    name : str, optional
        The network's, for people; the class's or the file's if nothing is said.
    standalone : str, optional
        Also build the network without a runtime, in the bundle's folder: what its names in C are
        made of, the network's own where it is empty.
    precision : str
        What the network computes in, between inputs and outputs of float32: ``float32``, or
        ``float16`` on cores that compute in half precision, ``int8`` on every ARM core.
    threads : int
        Threads that compute each kernel, a part each.
    calibrate : str or Path, optional
        With ``int8``: a folder of pictures, or an ``.npz`` of inputs, like those to come.
    keep_float32 : sequence of str
        With another precision: layers that compute in float32, or modules whose layers do.
    progress : Callable
        Told in a line what is being done.

    Returns
    -------
    Bundle
        The folder that goes to a device; open it with :func:`open_bundle`.

    Raises
    ------
    UsageError
        If the program cannot be compiled, or the bundle not be written: says what and why.

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> layers = nn.Conv2d(3, 8, 1), nn.ChannelShuffle(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    >>> network = nn.Sequential(*layers, nn.Linear(8, 5)).eval()
    >>> bundle = compile(network, (torch.zeros(1, 3, 8, 8),), target="host", output=folder)
    >>> bundle.manifest.shuffle_kernels
    0
    """
    return _tuned(
        program, example_inputs, target, output, name, progress, trials=0, standalone=standalone,
        precision=precision, threads=threads, calibrate=calibrate, keep_float32=keep_float32,
    ).bundle  # fmt: skip


def tune(  # noqa: PLR0913 - all but three by name
    program: Program,
    example_inputs: Sequence[torch.Tensor] = (),
    target: str = "arm",
    *,
    trials: int | None = None,
    minutes: float | None = None,
    device: str | None = None,
    score: str | None = None,
    core: str | None = None,
    check: bool = True,
    output: str | Path | None = None,
    name: str | None = None,
    standalone: str | None = None,
    precision: str = "float32",
    threads: int = 1,
    calibrate: str | Path | None = None,
    keep_float32: Sequence[str] = (),
    progress: Progress = lambda _: None,
) -> Outcome:
    """Search schedules for a network's kernels, keep the best as records, and compile with them.

    Parameters
    ----------
    program, example_inputs, target, output, name, standalone
        As of :func:`compile`.
    precision, threads, calibrate, keep_float32
        As of :func:`compile`.
    trials : int, optional
        Candidates to try in all, those of earlier runs included.
    minutes : float, optional
        How long to search.
    device : str, optional
        Where candidates are scored and the bundle is checked: ``local``, ``emulated[:CORE]``,
        ``adb[:SERIAL]``, ``ssh://[USER@]HOST[:PORT]``, ``rpc://HOST:PORT``,
        ``tracker://HOST:PORT/KEY``.
    score : str, optional
        ``latency``, ``estimate`` or ``instructions``.
    core : str, optional
        Where a phone or a board by ssh runs: ``big`` (its fastest core; if nothing is said),
        ``little``, ``any`` or a core's number.
    check : bool
        Whether the bundle is compared with PyTorch on the device.

    Returns
    -------
    Outcome
        The bundle, what was tried and found, and parity.

    Raises
    ------
    UsageError
        If what is asked for cannot be done.
    Failure
        If the device fails.
    """
    return _tuned(
        program, example_inputs, target, output, name, progress, trials=trials, minutes=minutes,
        device=device, score=score, core=core, check=check, standalone=standalone,
        precision=precision, threads=threads, calibrate=calibrate, keep_float32=keep_float32,
    )  # fmt: skip


def check_parity(
    bundle: Bundle | str | Path, device: str | None = None, *, core: str | None = None
) -> Parity:
    """Run a bundle's five inputs on a device and compare with PyTorch's answers.

    Parameters
    ----------
    bundle : Bundle, str or Path
        A bundle or its folder.
    device : str, optional
        Where to run; where the library fits if nothing is said: this machine, or an emulated board.
    core : str, optional
        Where a phone or a board by ssh runs, as of :func:`tune`.

    Returns
    -------
    Parity
        Errors, agreement of classes, and the first wrong kernel; ``passed`` and ``verdict`` say it
        in short.

    Raises
    ------
    UsageError
        If the bundle is not in order, or does not fit the device.
    Failure
        If the device fails.
    """
    from shuffledeploy.deploy.runtime.execution import open_network
    from shuffledeploy.deploy.runtime.parity import check_parity as check

    found = _bundle(bundle)
    with open_network(found, device, core) as network:
        return check(network, found)


def open_bundle(
    bundle: Bundle | str | Path, device: str = "local", *, core: str | None = None
) -> OpenBundle:
    """Load a bundle on a device, to be called with arrays or tensors.

    Parameters
    ----------
    bundle : Bundle, str or Path
        A bundle or its folder.
    device : str
        Where to run it.
    core : str, optional
        Where a phone or a board by ssh runs, as of :func:`tune`.

    Returns
    -------
    OpenBundle
        Call it; close it, or use it in a ``with`` block.

    Raises
    ------
    UsageError
        If the bundle is not in order, or does not fit the device.
    Failure
        If the device is not there.
    """
    return OpenBundle(_bundle(bundle), device, core)


def _bundle(bundle: Bundle | str | Path) -> Bundle:
    return bundle if isinstance(bundle, Bundle) else load_bundle(Path(bundle))


def _tuned(  # noqa: PLR0913 - what is asked for, once
    program: Program, example_inputs: Sequence[torch.Tensor], target: str,
    output: str | Path | None, name: str | None, progress: Progress, *, trials: int | None,
    minutes: float | None = None, device: str | None = None, score: str | None = None,
    core: str | None = None, check: bool = False, standalone: str | None = None,
    precision: str = "float32", threads: int = 1, calibrate: str | Path | None = None,
    keep_float32: Sequence[str] = (),
) -> Outcome:  # fmt: skip
    from shuffledeploy.compiler.targets import find_target
    from shuffledeploy.compiler.tuning.request import Request
    from shuffledeploy.compiler.tuning.session import tune_network
    from shuffledeploy.deploy.runtime.pictures import picture_input
    from shuffledeploy.deploy.scoring.tuning_devices import TuningDevices
    from shuffledeploy.model.plain_console import telling_console

    if precision not in PRECISIONS:
        raise UsageError(
            f"precision is {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, not {precision!r}"
        )
    found = find_target(target).computing_in(precision).on_threads(threads)
    if isinstance(program, str | Path):
        exported, file, own = None, Path(program), Path(program).stem
    else:
        exported, file, own = _exported(program, example_inputs), None, type(program).__name__
    request = Request(
        target=found, model=None, program=file, resolution=None, weights=None, trials=trials,
        seed=0, device=device, output=Path(output) if output is not None else None,
        log_folder=records_folder(), dump_ir=None, check=check, minutes=minutes, score=score,
        exported=exported, name=name or own, standalone=standalone,
        calibrate=Path(calibrate) if calibrate is not None else None, read_picture=picture_input,
        keep_float32=tuple(keep_float32),
    )  # fmt: skip
    return tune_network(request, TuningDevices(core), telling_console(progress))


def _exported(program: Any, example_inputs: Sequence[torch.Tensor]) -> ExportedProgram:
    """Trace a module; an exported program is taken as it is."""
    import torch
    from torch.export import ExportedProgram

    from shuffledeploy.compiler.frontend.program import trace_module

    if isinstance(program, ExportedProgram):
        return program
    if not isinstance(program, torch.nn.Module):
        raise UsageError(
            f"a {type(program).__name__} is no network: give a torch.nn.Module, a program of"
            " torch.export, or the file of one"
        )
    if program.training:
        raise UsageError("the network is in training mode: call its eval() first")
    if not example_inputs:
        raise UsageError("example_inputs is empty: give the inputs that the network is to take")
    for number, value in enumerate(example_inputs):
        if not isinstance(value, torch.Tensor) or value.device.type != "cpu":
            where = value.device if isinstance(value, torch.Tensor) else type(value).__name__
            raise UsageError(f"example input {number} is on {where}: give tensors on the CPU")
    return trace_module(program, tuple(example_inputs))
