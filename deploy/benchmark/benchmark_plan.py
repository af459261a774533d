"""What is measured beside what: groups of networks that take turns in one run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from shuffledeploy.deploy.benchmark.engines import OURS
from shuffledeploy.deploy.benchmark.subject_networks import (
    is_program,
    program_size,
    shape_of_image,
    short_name,
)
from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.registry import twin
from shuffledeploy.model.resolution import write_resolution

ALEXNET, SHUFFLENET = "alexnet", "shufflenet-g3-x0.5"
OWN = (224, 224)
LARGER = ((480, 640), (720, 1280))

#: Networks that share a group at 224x224: one ratio is made of the two, so they take turns too.
_AT_OWN = ((ALEXNET, SHUFFLENET), ("shufflenet-g3-x1",), ("mobilenet-x1.0",), ("resnext50-32x4d",))
_QUICK = ((ALEXNET, SHUFFLENET),)

#: Threads of a second pass over the networks, where the machine has as many cores.
MANY_THREADS = 4


@dataclass(frozen=True)
class Subject:
    """One network on one engine.

    Attributes
    ----------
    engine, model : str
        By name; `model` may be a twin without shuffles.
    size : tuple of int
        Height and width of the image.
    threads : int
        That the engine may use.
    """

    engine: str
    model: str
    size: tuple[int, int]
    threads: int = 1

    @property
    def resolution(self) -> str:
        """The size as ``HxW``."""
        return write_resolution(self.size)

    @property
    def title(self) -> str:
        """The network in tables."""
        return short_name(self.model)

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.title} {self.resolution} on {self.engine}"


@dataclass(frozen=True)
class SubjectGroup:
    """Subjects that take turns."""

    models: tuple[str, ...]
    size: tuple[int, int]
    engines: tuple[str, ...]
    threads: int = 1

    @property
    def resolution(self) -> str:
        """The size as ``HxW``."""
        return write_resolution(self.size)

    @property
    def name(self) -> str:
        """For people, and for the file of results."""
        threads = f", {self.threads} threads" if self.threads > 1 else ""
        return f"{' and '.join(map(short_name, self.models))} at {self.resolution}{threads}"

    @property
    def subjects(self) -> tuple[Subject, ...]:
        """All engines of each network, and our networks' twins without shuffles."""
        pairs = [(engine, model) for model in self.models for engine in self.engines]
        if OURS in self.engines and self.size == OWN and self.threads == 1:
            pairs += [(OURS, other) for model in self.models if (other := twin(model)) is not None]
        return tuple(Subject(engine, model, self.size, self.threads) for engine, model in pairs)


def plan(
    engines: Sequence[str],
    models: Sequence[str] = (),
    sizes: Sequence[tuple[int, int]] = (),
    threads: Sequence[int] = (),
    quick: bool = False,
) -> list[SubjectGroup]:
    """List the groups of a run.

    Parameters
    ----------
    engines : sequence of str
        By name.
    models, sizes : sequence
        Only these networks, and only these resolutions, each network at each.
    threads : sequence of int
        One pass for each; default: 1, and 4 where the machine has four cores.
    quick : bool
        AlexNet and the smallest ShuffleNet at 224x224.

    Raises
    ------
    UsageError
        A network, a resolution or a number of threads that cannot be.
    """
    cores = len(os.sched_getaffinity(0))
    passes = tuple(threads) or ((1, MANY_THREADS) if cores >= MANY_THREADS and not quick else (1,))
    for count in passes:
        if not 1 <= count <= cores:
            raise UsageError(f"this machine has {cores} cores: {count} threads cannot be measured")
    titles = [short_name(model) for model in dict.fromkeys(models)]
    if doubled := sorted({title for title in titles if titles.count(title) > 1}):
        raise UsageError(f"several networks are called {doubled[0]} in the tables: rename a file")
    groups = []
    for count in passes:
        for size, together in _choices(models, sizes, quick):
            for model in together:
                shape_of_image(model, size)
            # A second pass of its own accord is for the networks, not for the resolutions.
            if threads or count == 1 or size == OWN:
                groups.append(SubjectGroup(together, size, tuple(engines), count))
    return groups


def _choices(
    models: Sequence[str], sizes: Sequence[tuple[int, int]], quick: bool
) -> list[tuple[tuple[int, int], tuple[str, ...]]]:
    everything: list[tuple[tuple[int, int], tuple[str, ...]]]
    everything = [(OWN, together) for together in (_QUICK if quick else _AT_OWN)]
    if not quick:
        everything += [(size, (ALEXNET, SHUFFLENET)) for size in LARGER]
    chosen = tuple(dict.fromkeys(models))
    if sizes:
        by_size = dict.fromkeys(sizes)
        standard: dict[tuple[int, int], tuple[str, ...]] = {}
        for size, together in everything:
            standard[size] = (*standard.get(size, ()), *together)
        everything = []
        for size in by_size:
            for model in chosen or standard.get(size, (ALEXNET, SHUFFLENET)):
                everything.append((size, (model,)))
        return _joined(everything)
    if not chosen:
        return everything
    kept = [(size, tuple(m for m in together if m in chosen)) for size, together in everything]
    known = {model for _, together in kept for model in together}
    kept += [
        (program_size(model) if is_program(model) else OWN, (model,))
        for model in chosen
        if model not in known
    ]
    return [(size, together) for size, together in kept if together]


def _joined(
    pairs: Sequence[tuple[tuple[int, int], tuple[str, ...]]],
) -> list[tuple[tuple[int, int], tuple[str, ...]]]:
    """Put AlexNet and ShuffleNet of one size into one group."""
    joined: list[tuple[tuple[int, int], tuple[str, ...]]] = []
    for size in dict.fromkeys(size for size, _ in pairs):
        models = [model for other, (model,) in pairs if other == size]
        together = tuple(model for model in (ALEXNET, SHUFFLENET) if model in models)
        joined += [(size, together)] if together else []
        joined += [(size, (model,)) for model in models if model not in together]
    return joined
