"""Libraries of one network that differ in its kernels' schedules, and what their times say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tvm_ffi import structural_equal

from shuffledeploy.compiler.ir.connected_sets import connected
from shuffledeploy.compiler.library import compile_program, machine_program
from shuffledeploy.compiler.library_facts import strip_calls, symbols_of
from shuffledeploy.compiler.lowered_network import Lowered
from shuffledeploy.compiler.network import Chosen, choose_schedules, link_kernels
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.tuning.records.record import Record
from shuffledeploy.compiler.tuning.records.recorded_schedules import kernel_key
from shuffledeploy.compiler.tuning.score import NetworkTimes
from shuffledeploy.compiler.tuning.search.interleaved_timing import typical

#: A part takes another schedule than that of the first library only for such a gain.
LEAST_GAIN = 0.01

#: A record of each kernel by its key; default numbers where there is none.
Records = Mapping[str, Record]


class NetworkLibraries:
    """Libraries of one network by names, of which equal ones are built once.

    Parameters
    ----------
    lowered : Lowered
        The network.
    target : CompileTarget
        What to build for.
    folder : Path
        Where the libraries go.

    Attributes
    ----------
    paths : list of Path
        Of the libraries that were built, in the order in which they are to be timed.
    """

    def __init__(self, lowered: Lowered, target: CompileTarget, folder: Path) -> None:
        self._lowered, self._target, self._folder = lowered, target, folder
        self._keys = {name: kernel_key(function) for name, function in lowered.kernels.items()}
        self._chosen: list[dict[str, Chosen]] = []
        self._kernels_of_call: list[dict[str, tuple[str, ...]]] = []
        self._places: dict[str, int] = {}
        self.paths: list[Path] = []

    def build(self, name: str, records: Records) -> None:
        """Build the library of a choice of records, unless there is one of the same code."""
        chosen = choose_schedules(self._lowered, self._target, records)
        for place, other in enumerate(self._chosen):
            if all(_same_code(chosen[kernel], other[kernel]) for kernel in chosen):
                self._places[name] = place
                return
        functions = {kernel: choice.function for kernel, choice in chosen.items()}
        module = link_kernels(self._lowered, functions, self._target)
        path = self._folder / f"library_{len(self.paths)}.so"
        program = machine_program(module, self._target)
        compile_program(program, self._target, path)
        by_name: dict[str, tuple[str, ...]] = {n: (k,) for n, k in symbols_of(module).items()}
        by_name |= {call.name: call.kernels for call in strip_calls(module)}
        self._places[name] = len(self.paths)
        self.paths.append(path)
        self._chosen.append(chosen)
        self._kernels_of_call.append(by_name)

    def differing(self, one: str, other: str) -> set[str]:
        """List the keys of the kernels of which two libraries have other code."""
        here, there = (self._chosen[self._places[name]] for name in (one, other))
        return {
            self._keys[kernel] for kernel in here if not _same_code(here[kernel], there[kernel])
        }

    def whole(self, times: Sequence[NetworkTimes]) -> dict[str, float]:
        """Give the time of one inference by each name of a library; nanoseconds."""
        each = typical(np.array([one.whole for one in times], np.float64))
        return {name: float(each[place]) for name, place in self._places.items()}

    def best_of_parts(self, times: Sequence[NetworkTimes], first: str) -> dict[str, str]:
        """Name for each key the library that is fastest in its part of the network.

        A part is what times of calls cannot tell apart: the kernels of one call (by strips there
        are several), and all calls of one kernel. It stays with the first library unless another
        gains `LEAST_GAIN`.
        """
        calls = [
            [self._keys_of(place, name) for name in one.names] for place, one in enumerate(times)
        ]
        best: dict[str, str] = {}
        for part in connected({keys for one in calls for keys in one}):
            rounds = np.array([
                _sums(one, [place for place, keys in enumerate(named) if keys & part])
                for one, named in zip(times, calls, strict=True)
            ])  # fmt: skip
            spent = typical(rounds)
            name = min(self._places, key=lambda name: spent[self._places[name]])
            gained = spent[self._places[name]] < (1 - LEAST_GAIN) * spent[self._places[first]]
            best |= dict.fromkeys(part, name if gained else first)
        return best

    def _keys_of(self, place: int, call: str) -> frozenset[str]:
        kernels = self._kernels_of_call[place].get(call, (call,))
        return frozenset(self._keys[kernel] for kernel in kernels if kernel in self._keys)


def _sums(times: NetworkTimes, places: Sequence[int]) -> NDArray[np.float64]:
    """Add up some calls, in each round."""
    return np.asarray(times.calls, np.float64)[:, list(places)].sum(axis=1)


def _same_code(one: Chosen, other: Chosen) -> bool:
    return bool(structural_equal(one.function, other.function))
