"""Building candidates in warm processes of their own.

A stock MetaSchedule builder starts a process pool for every batch, each of which imports TVM and
its GPU intrinsics before it builds anything. These workers import once and live as long as the
tuning does; one that dies or hangs on a candidate is replaced and the candidate fails alone.
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shuffledeploy.compiler.tuning.score import KernelObject

if TYPE_CHECKING:
    # Workers import this module before they have said what TVM may import.
    from shuffledeploy.compiler.targets import CompileTarget

BUILD_TIMEOUT_S = 60.0
LOWEST_PRIORITY = 19
_numbers = itertools.count()


class Workers:
    """A pool of warm processes; a context manager that leaves none behind.

    Parameters
    ----------
    count : int, optional
        How many; as many as there are cores.
    polite : bool
        Whether they give way to all others: to who times a candidate while they build the next.
    """

    def __init__(self, count: int | None = None, *, polite: bool = False) -> None:
        self.count = count or max(1, os.cpu_count() or 1)
        self._polite = polite
        self._pool: ProcessPoolExecutor | None = None
        self._closed = False

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        # A thread that still waits for a build must not start them again.
        self._closed = True
        self.stop()

    def warm_up(self) -> None:
        """Start the processes now: they import TVM while others do something else.

        They end with the thread that starts them: call it in the one that lives longest.
        """
        for _ in range(self.count):
            self.submit(os.getpid)

    def submit(self, function: Any, *arguments: Any) -> Future[Any]:
        """Run a function of a module in a worker."""
        if self._closed:
            raise RuntimeError("the workers have ended")
        try:
            return self._started().submit(function, *arguments)
        except BrokenProcessPool:
            # One died between two batches: of memory, or with the thread that had started it.
            self.stop()
            return self._started().submit(function, *arguments)

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            context = multiprocessing.get_context("spawn")
            beginning = (os.getpid(), self._polite, _warm_up)
            self._pool = ProcessPoolExecutor(
                self.count, context, initializer=_begin, initargs=beginning
            )
        return self._pool

    def stop(self) -> None:
        """End the workers, also those that hang."""
        if self._pool is None:
            return
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()
        for process in processes:
            process.join()
        self._pool = None

    def run_all(
        self, function: Any, calls: Sequence[tuple[Any, ...]], timeout_s: float
    ) -> list[Any]:
        """Run calls in the workers; in place of a result, the reason why there is none (`str`)."""
        results: list[Any] = []
        futures: list[Future[Any]] = [self.submit(function, *call) for call in calls]
        for index, call in enumerate(calls):
            try:
                results.append(futures[index].result(timeout_s))
            except FutureTimeoutError:
                self.stop()
                results.append(f"no answer within {timeout_s:.0f} s")
                futures[index + 1 :] = [self.submit(function, *c) for c in calls[index + 1 :]]
            except BrokenProcessPool:
                # Whose fault it was cannot be told from here: try this one alone, then go on.
                self.stop()
                results.append(self._alone(function, call, timeout_s))
                futures[index + 1 :] = [self.submit(function, *c) for c in calls[index + 1 :]]
            except Exception as error:
                results.append(f"{type(error).__name__}: {str(error).strip().splitlines()[-1:]}")
        return results

    def _alone(self, function: Any, call: tuple[Any, ...], timeout_s: float) -> Any:
        try:
            return self.submit(function, *call).result(timeout_s)
        except (FutureTimeoutError, BrokenProcessPool):
            self.stop()
            return "it crashed its process"


# <sys/prctl.h>
PR_SET_PDEATHSIG = 1


def _begin(parent: int, polite: bool, warm_up: Callable[[], object]) -> None:
    """Tie a worker to its parent, before anything that takes long."""
    # A worker whose parent was killed would wait for work for ever. The parent may have died
    # since it started this process: then no signal comes.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    # Ctrl-C is the parent's to handle; it ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if polite:
        os.nice(LOWEST_PRIORITY)
    warm_up()


def _warm_up() -> None:
    os.environ["TVM_NUM_THREADS"] = "1"
    # tvm_ffi imports PyTorch where it finds it: 2 s and 200 MB that no build needs.
    sys.modules.setdefault("torch", None)  # type: ignore[arg-type]
    import tvm

    assert tvm


def build_candidate(module_json: str, target: CompileTarget, path: str, checks: bool) -> None:
    """Build a module of one kernel into an object file (runs in a worker).

    Parameters
    ----------
    module_json : str
        The module, as `tvm.ir.save_json` writes it.
    target : CompileTarget
        What to build for.
    path : str
        The object to write.
    checks : bool
        Whether the kernel checks its arguments.
    """
    from shuffledeploy.compiler.ir.tvm_edges import module_from_json
    from shuffledeploy.compiler.library import build_object

    build_object(module_from_json(module_json), target, Path(path), checks=checks)


BuildCall = tuple[str, "CompileTarget", str, bool]


def build_calls(
    functions: Sequence[Any], target: CompileTarget, folder: Path, *, checks: bool = True
) -> tuple[list[BuildCall], list[KernelObject]]:
    """Write down what workers are to build, and what it will be.

    Parameters
    ----------
    functions : sequence of tirx.PrimFunc
        Scheduled kernels.
    target : CompileTarget
        What to build for.
    folder : Path
        Where the objects go.
    checks : bool
        Whether kernels check their arguments: what is counted does, so that counts stay what they
        were; what is timed need not, since that takes 0.02 us.
    """
    import tvm

    from shuffledeploy.compiler.ir.tvm_edges import ENTRY_SYMBOL
    from shuffledeploy.compiler.kernels.blocks import WEIGHT

    calls: list[BuildCall] = []
    kernels = []
    for function in functions:
        # Never a name twice: a process that loaded a library of that name would run the old one.
        path = folder / f"candidate_{next(_numbers)}.o"
        module = tvm.IRModule({"main": function.with_attr("global_symbol", "main")})
        text = tvm.ir.save_json(module)
        calls.append((text, target, str(path), checks))
        names = [str(parameter.name) for parameter in function.params]
        weights = names.index(WEIGHT) if WEIGHT in names else None
        kernels.append(KernelObject(path, ENTRY_SYMBOL, argument_types(function), weights))
    return calls, kernels


def run_builds(
    calls: Sequence[BuildCall], kernels: Sequence[KernelObject], workers: Workers
) -> list[KernelObject | str]:
    """Build in the workers; in place of an object, why the candidate has none."""
    results = workers.run_all(build_candidate, calls, BUILD_TIMEOUT_S)
    return [r if isinstance(r, str) else k for r, k in zip(results, kernels, strict=True)]


def build_candidates(
    functions: Sequence[Any],
    target: CompileTarget,
    folder: Path,
    workers: Workers,
    *,
    checks: bool = True,
) -> list[KernelObject | str]:
    """Build scheduled kernels into objects: `build_calls`, then `run_builds`."""
    return run_builds(*build_calls(functions, target, folder, checks=checks), workers)


def argument_types(function: Any) -> tuple[tuple[tuple[int, ...], str], ...]:
    """Shape and data type of each parameter of a kernel."""
    return tuple(
        (tuple(int(extent) for extent in parameter.shape), str(parameter.dtype))
        for parameter in function.params
    )
