"""Makes what a group's workers load: our bundles, the peers' models, the compiled C."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

from shuffledeploy.compiler.bundle.folder import MANIFEST
from shuffledeploy.compiler.targets import HOST, find_target
from shuffledeploy.deploy.benchmark.answers import questions
from shuffledeploy.deploy.benchmark.benchmark_plan import Subject, SubjectGroup
from shuffledeploy.deploy.benchmark.conversion import RUNNER, converted
from shuffledeploy.deploy.benchmark.engines import ENGINES, OURS, STANDALONE
from shuffledeploy.deploy.benchmark.executorch_build import compiled_runner, installed_package
from shuffledeploy.deploy.benchmark.measurement import Prepared
from shuffledeploy.deploy.benchmark.native import FOLDER, compiled
from shuffledeploy.deploy.benchmark.subject_networks import bundle_of, folder_name, is_program
from shuffledeploy.model.errors import Failure


def prepare(group: SubjectGroup, tell: Callable[[str], None], folder: Path = FOLDER) -> Prepared:
    """Compile and convert what a group needs and is not at hand.

    Our bundles are built for this machine with the records of ``tuning_logs``, and nothing is
    tuned. They are made in any case: they carry PyTorch's answers.

    Raises
    ------
    Failure
        Our own compiler failed; a converter's failure is noted in the result instead.
    """
    target = find_target(HOST).on_threads(group.threads)
    bundles, asked = {}, {}
    for model in dict.fromkeys(subject.model for subject in group.subjects):
        bundles[model] = bundle_of(
            model, group.size, target, standalone=STANDALONE in group.engines, tell=tell
        )
        images = folder / "images" / f"{folder_name(model)}-{group.resolution}"
        asked[model] = questions(bundles[model], images, any_order=is_program(model))
    files: dict[Subject, dict[str, str]] = {}
    failed: dict[Subject, str] = {}
    for subject in group.subjects:
        if subject.engine == OURS:
            files[subject] = {"library": str(bundles[subject.model].library)}
            continue
        if subject.engine == STANDALONE:
            bundle = bundles[subject.model]
            files[subject] = {
                "library": str(bundle.standalone_library), "manifest": str(bundle.path / MANIFEST),
            }  # fmt: skip
            continue
        engine = ENGINES[subject.engine]
        tell(f"{subject.name}: {engine.model_format} model")
        try:
            files[subject] = converted(subject, engine.model_format, folder / "models")
            if engine.needs_runner:
                package, version = installed_package(), engine.version or ""
                runner = compiled_runner(package, version, platform.machine())
                files[subject][RUNNER] = str(runner)
        except Failure as failure:
            failed[subject] = str(failure)
    native = {
        name: compiled(name, folder, find_target(HOST).cpu) for name in ("roofline", "instrument")
    }
    return Prepared(bundles, asked, files, failed, native)
