"""The header of a standalone network: its functions, its constants, what an input means."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from shuffledeploy.compiler.ir.memory_layout import ALIGNMENT
from shuffledeploy.compiler.standalone.c_interface import (
    MISALIGNED,
    NO_SUCH_THREAD,
    TOO_SMALL,
    CInterface,
    Parameter,
)

_WIDTH = 96


def header(interface: CInterface) -> str:
    """Write the header, for C (C99 or newer) and C++."""
    upper = interface.name.upper()
    lines = [
        *_comment(_introduction(interface)),
        f"#ifndef {upper}_H", f"#define {upper}_H", "", "#include <stddef.h>",
        "#include <stdint.h>", "", "#ifdef __cplusplus", 'extern "C" {', "#endif", "",
        *_tensors(interface),
        *_sizes(interface),
        *_functions(interface),
        *_kernels(interface),
        "#ifdef __cplusplus", "}", "#endif", "", f"#endif /* {upper}_H */", "",
    ]  # fmt: skip
    return "\n".join(lines)


def _introduction(interface: CInterface) -> str:
    needs = ", ".join(interface.features) or "nothing beyond the base architecture"
    return (
        f"{interface.network}, compiled for {interface.target} ({interface.architecture}; the"
        f" processor must have: {needs}). A call is one inference on the calling thread. It"
        " allocates nothing, starts no thread and writes nothing global: several threads may call"
        " at once, each with a workspace and outputs of its own. Inputs, outputs and the workspace"
        " must not overlap."
    )


def _comment(text: str) -> list[str]:
    first, *rest = textwrap.wrap(text, 92)
    if not rest:
        return [f"/* {first} */"]
    return [f"/* {first}", *(f" * {line}" for line in rest[:-1]), f" * {rest[-1]} */"]


def _tensors(interface: CInterface) -> Iterator[str]:
    for kind, group in (("Input", interface.inputs), ("Output", interface.outputs)):
        for parameter in group:
            yield from _comment(_meaning(kind, parameter))
            yield f"#define {interface.macro(parameter)}_ELEMENTS {parameter.elements}"
            yield ""
    if interface.normalisation is not None:
        upper = interface.name.upper()
        yield from _comment(
            "Of an image's pixels in 0 to 1, the input holds (pixel - mean) / std of each channel."
        )
        yield f"#define {upper}_MEAN {_initialiser(interface.normalisation.mean)}"
        yield f"#define {upper}_STD {_initialiser(interface.normalisation.std)}"
        yield ""


def _meaning(kind: str, parameter: Parameter) -> str:
    shape = ", ".join(map(str, parameter.tensor.shape))
    said = f"{kind} {parameter.name}: {parameter.tensor.dtype} [{shape}], row-major"
    if kind == "Input" and len(parameter.tensor.shape) == 4:
        _, channels, height, width = parameter.tensor.shape
        said += (
            f" (NCHW: {channels} planes of {height} rows of {width} pixels; of an image in colour"
            " red, green, blue)"
        )
    return said + "."


def _initialiser(values: Sequence[float]) -> str:
    return "{" + ", ".join(f"{value!r}f" for value in values) + "}"


def _sizes(interface: CInterface) -> Iterator[str]:
    upper = interface.name.upper()
    yield f"#define {upper}_WORKSPACE_BYTES {interface.workspace}"
    yield f"#define {upper}_WORKSPACE_ALIGNMENT {ALIGNMENT}"
    yield from _comment("Of inputs and outputs, in bytes.")
    yield f"#define {upper}_TENSOR_ALIGNMENT {interface.tensor_alignment}"
    yield ""
    yield from _comment(
        "What its functions return: 0 when the outputs are written. Otherwise nothing was touched."
    )
    yield f"#define {upper}_MISALIGNED {MISALIGNED} /* a pointer is null, or not aligned */"
    yield f"#define {upper}_TOO_SMALL {TOO_SMALL} /* the workspace has too few bytes */"
    if interface.threads > 1:
        yield f"#define {upper}_NO_SUCH_THREAD {NO_SUCH_THREAD} /* its number is too large */"
    yield ""


def _functions(interface: CInterface) -> Iterator[str]:
    name, upper = interface.name, interface.name.upper()
    tensors = [f"const {p.c_type} *{p.name}" for p in interface.inputs]
    tensors += [f"{p.c_type} *{p.name}" for p in interface.outputs]
    yield from _declaration("size_t", f"{name}_workspace_bytes", ["void"])
    yield ""
    yield from _comment(
        f"Runs the network. The workspace has {upper}_WORKSPACE_BYTES, whatever they hold."
    )
    yield from _declaration("int", f"{name}_run", [*tensors, "void *workspace"])
    yield ""
    yield from _comment("The same, and checks how large the workspace is.")
    more = ["void *workspace", "size_t workspace_bytes"]
    yield from _declaration("int", f"{name}_run_within", [*tensors, *more])
    yield ""
    yield from _comment(
        f"The same as {name}_run, and notes the processor's counter before the first kernel and"
        f" after each, {upper}_KERNEL_CALLS + 1 times: {_COUNTERS[interface.architecture]}."
    )
    more = ["void *workspace", "int64_t *ticks"]
    yield from _declaration("int", f"{name}_run_timed", [*tensors, *more])
    yield ""
    if interface.threads > 1:
        yield from _share(interface, tensors)


def _share(interface: CInterface, tensors: Sequence[str]) -> Iterator[str]:
    name, upper = interface.name, interface.name.upper()
    yield f"#define {upper}_THREADS {interface.threads}"
    yield from _comment(
        f"Does the share of one of {upper}_THREADS threads that run the network together. Each of"
        " them calls it with the same pointers and a number of its own, from 0 on. meet(with) has"
        " to return once it was called in all of them, such as pthread_barrier_wait does; what a"
        " thread wrote before, the others see. The outputs are written when it returns."
    )
    more = ["void *workspace", "int thread", "void (*meet)(void *)", "void *with"]
    yield from _declaration("int", f"{name}_run_share", [*tensors, *more])
    yield ""


_COUNTERS = {
    "aarch64": "cntvct_el0, whose ticks a second cntfrq_el0 has",
    "x86_64": "the time stamp counter",
}


def _declaration(result: str, name: str, arguments: Sequence[str]) -> Iterator[str]:
    start = f"{result} {name}("
    line = start
    for number, argument in enumerate(arguments):
        part = argument + (");" if number == len(arguments) - 1 else ",")
        if len(line) + len(part) > _WIDTH and line != start:
            yield line.rstrip()
            line = " " * len(start)
        line += part + " "
    yield line.rstrip()


def _kernels(interface: CInterface) -> Iterator[str]:
    upper = interface.name.upper()
    yield f"#define {upper}_KERNEL_CALLS {len(interface.calls)}"
    yield f"#ifdef {upper}_WITH_KERNEL_NAMES"
    yield f"static const char *const {interface.name}_kernel_names[] = {{"
    yield from (f'    "{call}",' for call in interface.calls)
    yield "};"
    yield "#endif"
    yield ""
