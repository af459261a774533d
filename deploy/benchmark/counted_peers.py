"""What is counted beside what on an emulated core, and what is kept of it between runs."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.targets import find_target
from shuffledeploy.deploy import estimate
from shuffledeploy.deploy.benchmark.answers import questions
from shuffledeploy.deploy.benchmark.benchmark_plan import OWN, Subject
from shuffledeploy.deploy.benchmark.board_python import ensure_python
from shuffledeploy.deploy.benchmark.conversion import RUNNER, Files, converted, model_mb
from shuffledeploy.deploy.benchmark.counted_inference import count_inference
from shuffledeploy.deploy.benchmark.engines import ENGINES, IN_PRECISION, OURS, Engine
from shuffledeploy.deploy.benchmark.executorch_build import compiled_runner
from shuffledeploy.deploy.board.places import built_once, recipe_hash
from shuffledeploy.deploy.board.wheels import unpack_wheels
from shuffledeploy.deploy.estimate.boards import Board
from shuffledeploy.deploy.estimate.cycle_model import CycleModel
from shuffledeploy.deploy.runtime.comparison import cached_bundle
from shuffledeploy.deploy.runtime.network_estimate import on_board_json
from shuffledeploy.model.command_output import write_json
from shuffledeploy.model.errors import Failure, UsageError
from shuffledeploy.model.folders import BUILD
from shuffledeploy.model.registry import input_shape
from shuffledeploy.model.resolution import write_resolution

MODELS = (
    "shufflenet-g3-x0.5", "shufflenet-g3-x1", "mobilenet-x1.0", "alexnet", "resnext50-32x4d",
)  # fmt: skip
UNTUNED, TUNED = "untuned", "tuned"
#: Column -> engine, in the order of the table.
COLUMNS = {
    UNTUNED: OURS, TUNED: OURS, "ncnn": "ncnn", "onnxruntime": "onnxruntime", "mnn": "mnn",
    "litert": "litert", "executorch": "executorch",
}  # fmt: skip
FOLDER = BUILD / "peers"
_ESTIMATE = Path(estimate.__file__).parent
WORKERS = 2

Tell = Callable[[str | None], None]


@dataclasses.dataclass(frozen=True)
class Job:
    """One network at one resolution in one column."""

    model: str
    column: str
    size: tuple[int, int] = OWN
    precision: str = FLOAT

    @property
    def engine(self) -> Engine:
        """Return what runs it."""
        name = COLUMNS[self.column]
        return IN_PRECISION.get(self.precision, {}).get(name, ENGINES[name])

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.model} {write_resolution(self.size)}: {self.column}"


def plan_peers(
    models: Sequence[str],
    columns: Sequence[str],
    core: str,
    sizes: Sequence[tuple[int, int]] = (OWN,),
    precision: str = FLOAT,
) -> list[Job]:
    """List what is to be counted.

    Raises
    ------
    UsageError
        A network, a resolution, a column or a core that there is not; an engine that is not
        installed here, where the models are converted; a precision that core or engine lack.
    """
    find_target(core).computing_in(precision)
    for model in models:
        for size in sizes:
            input_shape(model, size)
    for column in columns:
        if column not in COLUMNS:
            raise UsageError(f"unknown engine {column!r}: take {', '.join(COLUMNS)}")
    narrow = IN_PRECISION.get(precision, {})
    able = [c for c, engine in COLUMNS.items() if precision == FLOAT or engine in (OURS, *narrow)]
    if unable := [column for column in columns if column not in able]:
        raise UsageError(f"{unable[0]} is not run in {precision}: take {', '.join(able)}")
    chosen = [column for column in able if not columns or column in columns]
    for column in chosen:
        engine = ENGINES[COLUMNS[column]]
        if engine.version is None:
            raise UsageError(f"{engine.label} is not installed: run `make peers`")
    return [Job(model, column, size, precision)
            for size in dict.fromkeys(sizes) for model in models for column in chosen]  # fmt: skip


def count_peers(
    jobs: Sequence[Job], core: str, tell: Tell, board: Board | None = None, folder: Path = FOLDER
) -> dict[str, Any]:
    """Count jobs; what a job's failure was stands in the document.

    Parameters
    ----------
    jobs : sequence of Job
        What to count.
    core : str
        The core to emulate.
    tell : Callable
        Told what is being done, and None at the end of each job.
    board : Board, optional
        Estimate milliseconds there; it has that core.
    folder : Path
        Where counts are kept for the next run.

    Returns
    -------
    dict
        ``core``, ``source`` of the cycles, ``board``, ``how``, ``rows``, ``failed``: see the
        README.
    """
    model = CycleModel("aarch64", core, WORKERS)
    rows, failed = [], []
    for job in jobs:
        tell(job.name)
        try:
            rows.append(_row(job, core, model, board, tell, folder))
        except Failure as error:
            failed.append({
                "model": job.model, "resolution": write_resolution(job.size),
                "engine": job.column, "reason": str(error),
            })  # fmt: skip
        tell(None)
    return {
        "core": core, "source": model.source,
        "precision": jobs[0].precision if jobs else FLOAT,
        "board": {"name": board.name, "clock_ghz": board.clock_ghz} if board else None,
        "how": {job.column: job.engine.how for job in jobs}, "rows": rows, "failed": failed,
    }  # fmt: skip


def _row(
    job: Job, core: str, model: CycleModel, board: Board | None, tell: Tell, folder: Path
) -> dict[str, Any]:
    """Count one network on one engine, unless that was done before."""
    target = find_target(core).computing_in(job.precision)
    bundle = cached_bundle(job.model, job.size, target, tuned=job.column != UNTUNED, tell=tell)
    if job.engine.name == OURS:
        files = {"library": str(bundle.library.absolute())}
    else:
        subject = Subject(job.engine.name, job.model, job.size)
        files = converted(subject, job.engine.model_format)
    key = _key(job, files, model.source, board)
    where = board.name if board else core
    resolution = write_resolution(job.size)
    name = f"{job.model}-{resolution}"
    half = f"-{job.precision}" if job.precision != FLOAT else ""
    kept = folder / f"{name}-{job.column}-{where}{half}.json"
    if (known := _known(kept, key)) is not None:
        return known
    asked = questions(bundle, folder.absolute() / "images" / name)
    packages = _packages(job.engine)
    if job.engine.needs_runner:
        package, version = packages[0] / "executorch", job.engine.version or ""
        runner = compiled_runner(package, version, "aarch64")
        files = {**files, RUNNER: str(runner)}
    tell(f"{job.name} on an emulated {core}")
    counted = count_inference(
        job.engine, files, asked, core, model, packages, board, precision=job.precision
    )
    row = {
        "model": job.model, "resolution": resolution, "engine": job.column,
        "engine_version": job.engine.version,
        "instructions": counted.instructions, "cycles": counted.cycles,
        **on_board_json(counted.on_board), "max_abs_error": counted.max_abs_error,
        "model_mb": model_mb(files), "kinds": {"instructions": "counted", "cycles": "estimated"},
        "kernels_with_record": sum(kernel.record for kernel in bundle.manifest.kernels)
        if job.engine.name == OURS else None,
    }  # fmt: skip
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, {"key": key, "row": row})
    return row


def _key(job: Job, files: Files, source: str, board: Board | None) -> str:
    # Engines ask the board for its caches, and cut their work to their sizes.
    shown = ensure_python().folder.name
    digest = hashlib.sha256(f"{job.engine.version} {source} {shown} {board}".encode())
    tables = (*_ESTIMATE.rglob("*.py"), *_ESTIMATE.rglob("*.csv"))
    for path in (*map(Path, sorted(files.values())), *sorted(tables)):
        digest.update(path.read_bytes())
    for module in (
        "board_worker.py",
        "counting_marks.py",
        "counted_inference.py",
        "counted_process.py",
        f"{job.engine.name}_engine.py",
        f"{job.engine.module.rpartition('.')[2]}.py",
        f"{job.engine.name}_runner.cpp",
    ):
        if (place := Path(__file__).parent / module).is_file():
            digest.update(place.read_bytes())
    return digest.hexdigest()


def _known(path: Path, key: str) -> dict[str, Any] | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return dict(kept["row"]) if kept["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _packages(engine: Engine) -> list[Path]:
    """Give the folder with an engine's aarch64 package; the board has all of ours."""
    if engine.name == OURS:
        return []
    python = ensure_python().version
    wheel = f"{engine.package}=={engine.version}"

    def build(folder: Path) -> None:
        unpack_wheels([wheel], python, folder, what=wheel)

    return [built_once(f"peer-{engine.name}-{recipe_hash(wheel, python)}", build)]
