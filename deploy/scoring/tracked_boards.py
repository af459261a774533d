"""The boards of a tracker as the tuner's score: real ones are timed, emulated ones count."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tvm

from shuffledeploy.compiler.library import link
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.compiler.tuning.score import MEASURED_UNIT, KernelObject
from shuffledeploy.compiler.tuning.search.latency_score import board_source, time_on_board
from shuffledeploy.deploy.devices import sessions
from shuffledeploy.deploy.devices.device_names import DeviceName
from shuffledeploy.deploy.devices.opening import Device, attach
from shuffledeploy.deploy.devices.trackers import Tracker
from shuffledeploy.deploy.runtime.device_fit import check_cpu
from shuffledeploy.deploy.scoring.board_farm import BoardFarm, FarmBoard
from shuffledeploy.model.errors import Failure, UsageError

TRIAL_S = 60.0
COUNTED_UNIT = "instructions"


class TrackedBoard:
    """A session with one board of a tracker.

    Parameters
    ----------
    name : DeviceName
        The tracker and the key.
    """

    def __init__(self, name: DeviceName) -> None:
        self.device, self._connection = attach(name, TRIAL_S)
        self.is_closed = False

    @property
    def address(self) -> str:
        """Tells it from the other boards."""
        return self.device.address

    def score(self, kernel: KernelObject) -> float | str:
        """Time a kernel, or count what one call executes.

        Raises
        ------
        Failure
            The board is lost.
        """
        try:
            if self.device.is_emulated:
                return count_on_board(self.device, kernel)
            return time_on_board(self.device, kernel)
        except Exception as error:
            lost = sessions.why_lost(self._connection, error)
            if lost is not None:
                raise Failure(lost) from error
            return (str(error).strip() or type(error).__name__).splitlines()[-1]

    def close(self) -> None:
        """Give the board back to the tracker."""
        self.is_closed = True
        sessions.close(self._connection)


def count_on_board(device: Device, kernel: KernelObject) -> float:
    """Count the instructions that one call of a kernel executes in its library.

    Numbers are whatever lay in the board's memory: no count depends on them. Tables of channels are
    zeros: by others a kernel would read outside its tensors.
    """
    library = kernel.path.with_suffix(".so")
    link(str(library), [str(kernel.path)])
    function = device.upload_and_load(library)["main"]
    place = device.session.cpu()
    tensors = [
        tvm.runtime.empty(shape, dtype, place)
        if dtype.startswith("float")
        else tvm.runtime.tensor(np.zeros(shape, dtype), place)
        for shape, dtype in kernel.arguments
    ]
    return float(device.count(lambda: function(*tensors), library).total)


class TrackedBoards:
    """The boards of one key, all of one kind; of a name of kind ``rpc`` the one board.

    Parameters
    ----------
    name : DeviceName
        The tracker and the key.
    target : CompileTarget
        What their code is built for.
    """

    def __init__(self, name: DeviceName, target: CompileTarget) -> None:
        self._name, self._target = name, target
        self._tracker = Tracker(name) if name.kind == "tracker" else None
        self._single: TrackedBoard | None = None
        self._first: Device | None = None

    def free(self) -> int:
        """How many could be taken now."""
        if self._tracker is not None:
            return self._tracker.free()
        return int(self._single is None or self._single.is_closed)

    def take(self) -> TrackedBoard:
        """Take one; a `Failure` where there is none after all."""
        self._single = TrackedBoard(self._name)
        return self._single

    def complaint(self, board: FarmBoard) -> str | None:
        """Why a board's scores cannot be used beside those of the first one, if they cannot."""
        assert isinstance(board, TrackedBoard)
        told = board.device.information
        features = None if told.features is None else frozenset(told.features)
        try:
            check_cpu(self._target, "it", told.architecture, features)
        except UsageError as error:
            return str(error)
        first = self._first = self._first or board.device
        if bool(first.is_emulated) != bool(board.device.is_emulated):
            return "emulated boards and real ones cannot be compared"
        if first.information.cpu != told.cpu:
            return f"its core is {told.cpu}, that of {first.address} is {first.information.cpu}"
        return None


class BoardScore:
    """Scores kernels on all boards of a key at once, or on the one that is named.

    Parameters
    ----------
    name : DeviceName
        A tracker and its key, or one board.
    target : CompileTarget
        What they run.
    is_emulated : bool
        Whether they count or measure.
    tell : Callable
        Told of boards that are set aside.
    """

    def __init__(
        self, name: DeviceName, target: CompileTarget, *, is_emulated: bool,
        tell: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._farm = BoardFarm(TrackedBoards(name, target), tell)
        self.unit = COUNTED_UNIT if is_emulated else MEASURED_UNIT
        # Not the source of kernels that a runner calls: there memcpy counts, here it is libc's.
        self.source = (
            f"counted: instructions executed in the library by {target.cpu} code, emulated board"
            if is_emulated
            else board_source(target.cpu)
        )

    @property
    def boards(self) -> int:
        """How many boards it has and uses."""
        return self._farm.size

    @property
    def warnings(self) -> Sequence[str]:
        """A sentence for each board that was set aside."""
        return self._farm.warnings

    def __call__(self, kernels: Sequence[KernelObject]) -> list[float | str]:
        """Score each kernel, on as many boards at once as there are."""
        return self._farm.run(kernels)

    def close(self) -> None:
        """Give the boards back."""
        self._farm.close()
