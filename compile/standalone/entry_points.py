"""The functions that a C program calls: they check their pointers, then let the network compute.

They are written as LLVM's code, since TVM's own functions can only return 0.
"""

from __future__ import annotations

from collections.abc import Sequence

from shuffledeploy.compiler.ir.memory_layout import ALIGNMENT
from shuffledeploy.compiler.passes.memory.one_function import COMPUTE, COMPUTE_TIMED
from shuffledeploy.compiler.passes.memory.thread_share import COMPUTE_SHARE
from shuffledeploy.compiler.standalone.c_interface import (
    MISALIGNED,
    NO_SUCH_THREAD,
    TOO_SMALL,
    CInterface,
)


def entry_points(interface: CInterface) -> str:
    """Write the public functions of a network, which call what the pass `one_function` made."""
    tensors = [f"%tensor_{n}" for n in range(len(interface.inputs) + len(interface.outputs))]
    name = interface.name
    plain, timed = [*tensors, "%workspace"], [*tensors, "%workspace", "%ticks"]
    return "\n".join([
        _declaration(f"{name}_{COMPUTE}", plain),
        _declaration(f"{name}_{COMPUTE_TIMED}", timed),
        f"define i64 @{name}_workspace_bytes() {{\n  ret i64 {interface.workspace}\n}}",
        _function(f"{name}_run", plain, f"{name}_{COMPUTE}", interface),
        _function(f"{name}_run_timed", timed, f"{name}_{COMPUTE_TIMED}", interface),
        _function(f"{name}_run_within", plain, f"{name}_{COMPUTE}", interface, sized=True),
        *([_of_thread(interface, plain)] if interface.threads > 1 else []),
        "",
    ])  # fmt: skip


def exported_names(interface: CInterface) -> tuple[str, ...]:
    """List the functions that a program may call."""
    shares = ("run_share",) if interface.threads > 1 else ()
    calls = ("run", "run_timed", "run_within", *shares, "workspace_bytes")
    return tuple(f"{interface.name}_{call}" for call in calls)


def _declaration(name: str, pointers: Sequence[str]) -> str:
    return f"declare hidden i32 @{name}({', '.join('ptr' for _ in pointers)})"


def _function(
    name: str, pointers: Sequence[str], calls: str, interface: CInterface, *, sized: bool = False
) -> str:
    parameters = ", ".join([f"ptr {p}" for p in pointers] + (["i64 %bytes"] if sized else []))
    too_small = [
        f"  %small = icmp ult i64 %bytes, {interface.workspace}",
        "  br i1 %small, label %too_small, label %computes",
        "too_small:",
        f"  ret i32 {TOO_SMALL}",
    ]
    return "\n".join([
        f"define i32 @{name}({parameters}) {{",
        *_misalignment(pointers, interface.tensor_alignment),
        "  br i1 %bad, label %misaligned, label %checks_size",
        "misaligned:",
        f"  ret i32 {MISALIGNED}",
        "checks_size:",
        *(too_small if sized else ["  br label %computes"]),
        "computes:",
        f"  %status = call i32 @{calls}({', '.join(f'ptr {p}' for p in pointers)})",
        "  ret i32 %status",
        "}",
    ])  # fmt: skip


def _of_thread(interface: CInterface, plain: Sequence[str]) -> str:
    """Write the function that does the share of one thread, and that which it calls."""
    given = [*(f"ptr {p}" for p in plain), "i32 %thread", "ptr %meet", "ptr %with"]
    inner = f"{interface.name}_{COMPUTE_SHARE}"
    types = ", ".join(parameter.split()[0] for parameter in given)
    return "\n".join([
        f"declare hidden i32 @{inner}({types})",
        f"define i32 @{interface.name}_run_share({', '.join(given)}) {{",
        *_misalignment([*plain, "%meet"], interface.tensor_alignment),
        "  br i1 %bad, label %misaligned, label %checks_thread",
        "misaligned:",
        f"  ret i32 {MISALIGNED}",
        "checks_thread:",
        f"  %outside = icmp uge i32 %thread, {interface.threads}",
        "  br i1 %outside, label %no_such_thread, label %computes",
        "no_such_thread:",
        f"  ret i32 {NO_SUCH_THREAD}",
        "computes:",
        f"  %status = call i32 @{inner}({', '.join(given)})",
        "  ret i32 %status",
        "}",
    ])  # fmt: skip


def _misalignment(pointers: Sequence[str], of_tensors: int) -> list[str]:
    """Write the value ``%bad``: whether a pointer is null or not aligned."""
    lines, verdict = [], "false"
    for pointer in pointers:
        own = pointer.removeprefix("%")
        alignment = {"workspace": ALIGNMENT, "ticks": 8, "meet": 1}.get(own, of_tensors)
        lines += [
            f"  %{own}_at = ptrtoint ptr {pointer} to i64",
            f"  %{own}_beyond = and i64 %{own}_at, {alignment - 1}",
            f"  %{own}_off = icmp ne i64 %{own}_beyond, 0",
            f"  %{own}_null = icmp eq ptr {pointer}, null",
            f"  %{own}_wrong = or i1 %{own}_off, %{own}_null",
            f"  %{own}_bad = or i1 {verdict}, %{own}_wrong",
        ]
        verdict = f"%{own}_bad"
    return [*lines, f"  %bad = or i1 {verdict}, false"]
