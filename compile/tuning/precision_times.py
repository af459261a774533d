"""What a network takes in a precision on a board, with the records at hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from shuffledeploy.compiler.chosen_precision import TriedPrecision
from shuffledeploy.compiler.ir.graph import Array
from shuffledeploy.compiler.lowered_network import lower
from shuffledeploy.compiler.network import choose_schedules, write_bundle
from shuffledeploy.compiler.tuning.records.related_records import usable_records
from shuffledeploy.compiler.tuning.search.tasks import find_tasks
from shuffledeploy.model.scratch import scratch_folder

if TYPE_CHECKING:
    from torch.export import ExportedProgram

    from shuffledeploy.compiler.tuning.request import Request


def times_of_precisions(
    request: Request, exported: ExportedProgram, calibration: list[list[Array]]
) -> Callable[[TriedPrecision], float] | None:
    """Give what estimates the milliseconds of a network in a precision.

    Parameters
    ----------
    request : Request
        Its `estimate_ms` estimates a bundle.
    exported : ExportedProgram
        The network.
    calibration : list of list of Array
        What a network in int8 learns from how large its numbers get.

    Returns
    -------
    Callable or None
        It compiles the network and estimates that, in half a minute; None where the request names
        no board.
    """
    estimate = request.estimate_ms
    if estimate is None:
        return None

    def milliseconds(tried: TriedPrecision) -> float:
        target = request.target.computing_in(tried.precision)
        lowered = lower(exported, target, None, calibration, tried.kept)
        keys = [task.key for task in find_tasks(lowered, target)]
        records = usable_records(request.log_folder, target, keys)
        chosen = choose_schedules(lowered, target, records)
        with scratch_folder("shuffledeploy-precision-") as folder:
            return estimate(write_bundle(
                folder / "bundle", lowered, chosen, target, network=request.network,
                normalisation=None, options={},
            ))  # fmt: skip

    return milliseconds
