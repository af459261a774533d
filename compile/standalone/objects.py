"""Object, archive and shared library of a standalone network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import tvm

from shuffledeploy.compiler.ir.attributes import OF_KERNEL
from shuffledeploy.compiler.ir.constants import (
    CONSTANTS,
    Constants,
    constants_assembly,
    with_llvm,
)
from shuffledeploy.compiler.library import PAGE_SIZE, compiled_kernels
from shuffledeploy.compiler.native_tools import compile_c, linker, run_tool, zig
from shuffledeploy.compiler.passes.memory.one_function import COMPUTE, COMPUTE_TIMED
from shuffledeploy.compiler.passes.memory.thread_share import COMPUTE_SHARE
from shuffledeploy.compiler.pipeline import Dump
from shuffledeploy.compiler.standalone.c_interface import CInterface
from shuffledeploy.compiler.standalone.entry_points import entry_points, exported_names
from shuffledeploy.compiler.targets import CompileTarget
from shuffledeploy.model.scratch import scratch_folder

_MEMORY_FUNCTIONS = Path(__file__).with_name("memory_functions.c")
_MEMORY_FLAGS = (
    "-ffreestanding", "-fno-builtin", "-fvisibility=hidden", "-fPIC", "-fno-stack-protector",
    "-fno-asynchronous-unwind-tables", "-fno-unroll-loops", "-g0",
)  # fmt: skip

# TVM describes functions for debuggers, which takes a third of the code, and brings conversions of
# halves under names that a C library has too.
_KEPT = """\
SECTIONS {
  /DISCARD/ : { *(.debug*) *(.rela.debug*) *(.comment) }
}
"""


@dataclasses.dataclass(frozen=True)
class _Format:
    """What LLVM has to know to write an object: its triple, and the layout of data beside that."""

    triple: str
    layout: str = ""
    is_mach_o: bool = False


# Apple's systems all take Mach-O for this processor; an object that names none of them suits each.
_MACH_O = _Format(
    "arm64-unknown-none-macho", "e-m:o-i64:64-i128:128-n32:64-S128-Fn32", is_mach_o=True
)
# Android and Apple's systems keep this register for themselves (ARM, "Procedure Call Standard for
# the Arm 64-bit Architecture", 6.1.1; Apple, "Writing ARM64 code for Apple platforms"). LLVM knows
# that of their triples, but one object is for every system.
_KEPT_REGISTER = "+reserve-x18"


def write_object(
    module: tvm.IRModule, interface: CInterface, target: CompileTarget, path: Path, dump: Dump
) -> None:
    """Compile a network to one object.

    Parameters
    ----------
    module : tvm.IRModule
        What the step `one_function` made.
    interface : CInterface
        Its names in C.
    target : CompileTarget
        What to compile for.
    path : Path
        The object to write. It defines what the header declares; all else is hidden. It needs
        ``memcpy``, and what the network's operators take from a C library's mathematics.
    dump : Dump
        Where the module is shown after each step.
    """
    with scratch_folder(f".{interface.name}.", path.parent) as folder:
        elf = _Format(f"{target.architecture}-linux-gnu")
        parts = _compiled_parts(module, interface, target, elf, folder, dump)
        script = folder / "kept.ld"
        script.write_text(_KEPT, encoding="ascii")
        roots = [f"--undefined={name}" for name in exported_names(interface)]
        run_tool(
            [*linker(), "-r", "--gc-sections", *roots, "-T", str(script), *map(str, parts),
             "-o", str(path)],
            f"link {path.name}",
        )  # fmt: skip


def write_apple_archive(
    module: tvm.IRModule, interface: CInterface, target: CompileTarget, path: Path
) -> None:
    """Compile a network to a static library of Apple's format, for macOS and iOS on arm64.

    Parameters
    ----------
    module, interface, target
        As of `write_object`; the target is an AArch64 one.
    path : Path
        The library to write. It needs what the object needs.
    """
    options = {**target.options, "mtriple": _MACH_O.triple}
    apples = dataclasses.replace(target, options=options)
    with scratch_folder(f".{interface.name}.", path.parent) as folder:
        parts = _compiled_parts(module, interface, apples, _MACH_O, folder, Dump())
        write_archive(parts, path, "darwin")


def _for_every_system(target: CompileTarget) -> CompileTarget:
    """Give the target whose code leaves alone what some systems keep for themselves."""
    if target.architecture != "aarch64":
        return target
    own = target.options.get("mattr", [])
    attributes = [*(own if isinstance(own, list) else str(own).split(",")), _KEPT_REGISTER]
    return dataclasses.replace(target, options={**target.options, "mattr": attributes})


def _compiled_parts(
    module: tvm.IRModule, interface: CInterface, target: CompileTarget, form: _Format,
    folder: Path, dump: Dump,
) -> list[Path]:  # fmt: skip
    """Compile the kernels, and the public functions that call them, to an object each."""
    kernels, entries = folder / "kernels.o", folder / "entries.o"
    named = _with_constants(module, interface, folder, is_mach_o=form.is_mach_o)
    everywhere = _for_every_system(target)
    with everywhere.tvm_target:
        compiled_kernels(named, everywhere, dump).mod.write_to_file(str(kernels), "o")
    source = folder / "entries.ll"
    layout = f'target datalayout = "{form.layout}"\n' if form.layout else ""
    code = f'{layout}target triple = "{form.triple}"\n{entry_points(interface)}'
    source.write_text(code, encoding="ascii")
    tvm.runtime.load_module(str(source)).write_to_file(str(entries))
    return [kernels, entries]


def _with_constants(
    module: tvm.IRModule, interface: CInterface, folder: Path, *, is_mach_o: bool
) -> tvm.IRModule:
    """Give the functions their names in C, and the first of them the constants."""
    constants = Constants.of(module)
    functions = dict(module.functions)
    shares = (COMPUTE_SHARE,) if interface.threads > 1 else ()
    for name in (COMPUTE, COMPUTE_TIMED, *shares):
        variable = module.get_global_var(name)
        function = functions[variable].with_attr("global_symbol", f"{interface.name}_{name}")
        if name == COMPUTE and constants.tensors:
            constants.write(folder / "constants")
            code = constants_assembly(folder / "constants", is_mach_o=is_mach_o)
            function = function.with_body(with_llvm(function.body, code))
        functions[variable] = function.with_attr(OF_KERNEL, name)
    return tvm.IRModule(functions).without_attr(CONSTANTS)


def write_archive(built: Sequence[Path], path: Path, form: str = "gnu") -> None:
    """Put objects into a static library, for a linker of ELF (``gnu``) or Mach-O (``darwin``)."""
    path.unlink(missing_ok=True)
    objects = map(str, built)
    run_tool([str(zig()), "ar", f"--format={form}", "rcsD", str(path), *objects],
             f"write {path.name}")  # fmt: skip


def write_shared(built: Path, interface: CInterface, path: Path) -> None:
    """Link an object into a shared library that needs no other: it loads on glibc, musl, bionic.

    Where operators need a C library's mathematics, the program that loads it has to bring that.
    """
    with scratch_folder(f".{interface.name}.", path.parent) as folder:
        memory, versions = folder / "memory.o", folder / "exported"
        triple = ("-c", "-target", f"{interface.architecture}-linux-musl")
        compile_c(_MEMORY_FUNCTIONS, memory, (*triple, *_MEMORY_FLAGS))
        names = " ".join(f"{name};" for name in exported_names(interface))
        versions.write_text(f"{{ global: {names} local: *; }};\n", encoding="ascii")
        run_tool(
            [*linker(), "-shared", "--gc-sections", "-s", "-z", f"max-page-size={PAGE_SIZE}",
             "-z", "noexecstack", "-soname", path.name, f"--version-script={versions}",
             str(built), str(memory), "-o", str(path)],
            f"link {path.name}",
        )  # fmt: skip
