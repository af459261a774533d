"""Targets by name: what an engineer types, and what LLVM and the schedules make of it."""

from __future__ import annotations

import dataclasses
import json
import platform
import re
import sys

import tvm
from tvm.target import Target

from shuffledeploy.compiler.cores import (
    ARM,
    CORES,
    DEFAULT_CORE,
    DOT_FEATURE,
    HALF_FEATURE,
    no_half,
)
from shuffledeploy.compiler.ir.memory_layout import FLOAT, HALF, PRECISIONS
from shuffledeploy.compiler.ir.tvm_edges import has_feature, known_cpus, system_cpu
from shuffledeploy.compiler.kernels.tiling import Core
from shuffledeploy.compiler.processor_features import cpu_features, general_names
from shuffledeploy.model.errors import UsageError

HOST = "host"
AARCH64_TRIPLE = "aarch64-linux-gnu"
X86_TRIPLE = "x86_64-linux-gnu"

# The cores that can be named as targets, in the order in which they are neighbours.
ARM_CORES = tuple(core.name for core in CORES.values() if core.is_target)

# What LLVM takes for granted on a core -> its name in /proc/cpuinfo.
ARM_FEATURES = {
    "neon": "asimd", "lse": "atomics", "dotprod": "asimddp", "fullfp16": "asimdhp",
    "sve": "sve", "sve2": "sve2", "bf16": "bf16", "i8mm": "i8mm",
}  # fmt: skip
# Bytes of second-level cache that strips may count on: a budget, not what a core has. Of ARM's: the
# Raspberry Pi 3's four A53s share so much, the Pi 5's A76s have it each. Of x86 with AVX-512:
# Skylake Server, Ice Lake Server and Zen 4 have as much or more; before them, Zen had half of it.
# Intel's client cores since Alder Lake, which lack AVX-512, have 1.25 MiB and more.
CACHE_BUDGET, LARGE_CACHE_BUDGET = 1 << 19, 1 << 20
LARGE_CACHES = (
    "alderlake", "raptorlake", "meteorlake", "arrowlake", "arrowlake-s", "lunarlake", "pantherlake",
)  # fmt: skip
# Arithmetic of half precision on x86: LLVM's name of it, and that in /proc/cpuinfo.
X86_HALF, X86_HALF_FEATURE = "avx512fp16", "avx512_fp16"
AVX512_FEATURES = ("avx512f", "avx512bw", "avx512dq", "avx512vl")

# Threads of a network: more share a kernel of a few microseconds no further.
MOST_THREADS = 64


@dataclasses.dataclass(frozen=True)
class CompileTarget:
    """A target by name.

    Attributes
    ----------
    name : str
        Name of its tuning records' folder and in every report, such as ``cortex-a72``.
    options : dict
        What `tvm.target.Target` is made of.
    architecture : str
        ``aarch64`` or ``x86_64``.
    cpu : str
        LLVM's name of the core.
    features : tuple of str
        Names in ``/proc/cpuinfo`` that the machine must have.
    core : Core
        What the schedules need to know.
    cache : int
        Bytes of the cache that neighbouring layers should share.
    precision : str
        Type of the numbers that networks compute in.
    threads : int
        Threads that compute each kernel, a part each.
    """

    name: str
    options: dict[str, str | int | list[str]]
    architecture: str
    cpu: str
    features: tuple[str, ...]
    core: Core
    cache: int = CACHE_BUDGET
    precision: str = FLOAT
    threads: int = 1

    @property
    def tvm_target(self) -> Target:
        """The TVM target, its own host."""
        return Target(self.options, host=self.options)

    @property
    def fetches(self) -> bool:
        """Whether kernels ask for weights ahead: where it was measured to bring something."""
        return self.architecture == "x86_64"

    @property
    def with_whole_layers(self) -> CompileTarget:
        """The same, but that no layers are computed by strips: all tensors fit its cache."""
        return dataclasses.replace(self, cache=sys.maxsize)

    def on_threads(self, threads: int) -> CompileTarget:
        """Give the same, but that so many threads compute each kernel.

        Raises
        ------
        UsageError
            If that is no number of threads.
        """
        if not 1 <= threads <= MOST_THREADS:
            raise UsageError(f"threads are 1 to {MOST_THREADS}, not {threads}")
        return dataclasses.replace(self, threads=threads)

    @property
    def computes_in_half(self) -> bool:
        """Whether its vectors add and multiply numbers of half precision."""
        if self.architecture == "aarch64":
            return HALF_FEATURE in self.features
        return has_feature(X86_HALF, self.tvm_target)

    @property
    def folder_name(self) -> str:
        """Its name, and precision and threads that are not usual: for folders of bundles."""
        precision = "" if self.precision == FLOAT else f"-{self.precision}"
        threads = "" if self.threads == 1 else f"-threads{self.threads}"
        return f"{self.name}{precision}{threads}"

    def computing_in(self, precision: str) -> CompileTarget:
        """Give the same target for networks that compute in another type.

        Raises
        ------
        UsageError
            Where the core has no arithmetic of that type.
        """
        if precision == HALF and not self.computes_in_half:
            raise UsageError(no_half(self.name))
        # Of x86 a library in float32 runs without it, though the core has it.
        more = {X86_HALF_FEATURE} if precision == HALF and self.architecture == "x86_64" else set()
        features = (*self.features, *sorted(more - set(self.features)))
        return dataclasses.replace(self, precision=precision, features=features)

    @property
    def in_each_precision(self) -> list[CompileTarget]:
        """The same for each precision in which it computes."""
        return [self.computing_in(p) for p in PRECISIONS if p != HALF or self.computes_in_half]

    def require_apple(self) -> None:
        """Refuse a target that is built for a processor which no system of Apple's has today.

        Raises
        ------
        UsageError
            If it is no 64-bit ARM one.
        """
        if self.architecture != "aarch64":
            raise UsageError(f"--apple goes with a 64-bit ARM --target, and {self.name} is none")

    @property
    def fits_this_machine(self) -> bool:
        """Whether a library for this target can run here."""
        return self.architecture == platform.machine() and set(self.features) <= cpu_features()


def find_target(name: str) -> CompileTarget:
    """Find a target by its name, a TVM tag, or a dict written as JSON.

    Raises
    ------
    UsageError
        Where there is no such target; the message lists those with a name.
    """
    if name == ARM:
        name = DEFAULT_CORE
    if name == HOST:
        return _host()
    if name in ARM_CORES:
        return _from_options(name, _llvm(AARCH64_TRIPLE, name))
    if name.lstrip().startswith("{"):
        return _from_dict(name)
    if name in tvm.target.list_tags():
        return _from_options(name.replace("/", "-"), _options_of_tag(name))
    raise UsageError(
        f"no target is called {name!r}: take arm, host, {', '.join(ARM_CORES)}, a TVM tag, or a "
        f'dict such as \'{{"kind": "llvm", "mtriple": "{AARCH64_TRIPLE}", "mcpu": "cortex-a72"}}\''
    )


def _llvm(triple: str, cpu: str) -> dict[str, str | int | list[str]]:
    return {"kind": "llvm", "mtriple": triple, "mcpu": cpu, "num-cores": 1}


def _options_of_tag(name: str) -> dict[str, str | int | list[str]]:
    found = dict(Target(name).export())
    if str(found["kind"]) != "llvm":
        raise UsageError(f"target {name!r} is a {found['kind']} device: only CPUs are supported")
    options: dict[str, str | int | list[str]] = {"kind": "llvm"}
    options |= {key: str(found[key]) for key in ("mtriple", "mcpu") if key in found}
    if "mattr" in found:
        options["mattr"] = [str(feature) for feature in found["mattr"]]
    return options


def _host() -> CompileTarget:
    machine = platform.machine()
    triple = {"x86_64": X86_TRIPLE, "aarch64": AARCH64_TRIPLE}.get(machine)
    if triple is None:
        raise UsageError(f"this machine is {machine!r}: only x86_64 and aarch64 are supported")
    cpu = system_cpu()
    target = _from_options(f"{HOST}-{cpu}", _llvm(triple, cpu))
    if target.fits_this_machine:
        return target
    general = (_from_options(f"{HOST}-{name}", _llvm(triple, name)) for name in general_names())
    return next((other for other in general if other.fits_this_machine), target)


def places_apart(name: str, target: CompileTarget) -> int | None:
    """Tell how far a core, by its target's name, is from a target that could use its records.

    Returns
    -------
    int or None
        Places apart in `ARM_CORES`; for hosts 0, or 1 where other units do the work; None where
        vectors or architecture differ, or one core issues in order and the other does not.
    """
    if target.architecture == "aarch64":
        if name not in ARM_CORES or CORES[name].scheduling.in_order != target.core.in_order:
            return None
        # A core that is not listed, such as a host of this architecture: the default's neighbour.
        here = ARM_CORES.index(target.cpu if target.cpu in ARM_CORES else DEFAULT_CORE)
        return abs(ARM_CORES.index(name) - here)
    cpu = name.removeprefix(f"{HOST}-")
    try:
        other = _from_options(name, _llvm(X86_TRIPLE, cpu))
    except UsageError:
        return None
    vectors = (other.core.lanes, other.core.registers)
    if not name.startswith(HOST) or vectors != (target.core.lanes, target.core.registers):
        return None
    return int(other.core != target.core)


def _from_dict(text: str) -> CompileTarget:
    try:
        options = json.loads(text)
        Target(options)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[-1]
        raise UsageError(f"the target {text!r} is not one that TVM takes: {reason}") from error
    if options.get("kind") != "llvm" or "mtriple" not in options:
        raise UsageError(f'the target {text!r} must have "kind": "llvm" and an "mtriple"')
    name = "-".join((str(options["mtriple"]).split("-")[0], str(options.get("mcpu", "generic"))))
    # Records of cores that differ in their features are kept apart, in folders of these names.
    features = "".join(sorted(options.get("mattr", [])))
    if re.fullmatch(r"[\w.+-]*", features) is None:
        raise UsageError(f"the target {text!r} has features that are none: {features}")
    return _from_options(name + features, options)


def _from_options(name: str, options: dict[str, str | int | list[str]]) -> CompileTarget:
    triple, cpu = str(options.get("mtriple", "")), str(options.get("mcpu", "generic"))
    architecture = triple.split("-", maxsplit=1)[0].replace("arm64", "aarch64")
    if architecture not in ("aarch64", "x86_64"):
        raise UsageError(
            f"target {name!r} is for {architecture or 'an unknown architecture'}: only 64-bit ARM "
            "(aarch64) and x86_64 are supported; 32-bit ARM is not"
        )
    options = {**options, "num-cores": 1}
    bare = Target({"kind": "llvm", "mtriple": triple})
    if cpu not in known_cpus(bare):
        raise UsageError(f"target {name!r}: LLVM knows no {architecture} core called {cpu!r}")
    if architecture == "aarch64":
        target = Target(options)
        needed = tuple(linux for llvm, linux in ARM_FEATURES.items() if has_feature(llvm, target))
        in_order = cpu in CORES and CORES[cpu].scheduling.in_order
        core = Core(4, 32, dot_products=DOT_FEATURE in needed, in_order=in_order)
        return CompileTarget(name, options, architecture, cpu, needed, core)
    needed, core = _x86_vectors(options)
    large = core.lanes == 16 or cpu in LARGE_CACHES
    cache = LARGE_CACHE_BUDGET if large else CACHE_BUDGET
    return CompileTarget(name, options, architecture, cpu, needed, core, cache)


def _x86_vectors(options: dict[str, str | int | list[str]]) -> tuple[tuple[str, ...], Core]:
    target = Target(options)
    if has_feature("avx512f", target):
        # AMD multiplies on two pipes and shuffles on two, of which one is another; Intel's second
        # pipe that multiplies vectors of 512 bits is the only one that shuffles them (uops.info).
        is_amd = str(options.get("mcpu", "")).startswith("znver")
        return ("fma", "avx2", *AVX512_FEATURES), Core(16, 32, shuffles_beside=is_amd)
    if has_feature("avx2", target) and has_feature("fma", target):
        return ("fma", "avx2"), Core(8, 16)
    return ("sse2",), Core(4, 16)
