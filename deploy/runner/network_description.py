"""What the bench runner has to know of its network, as a C header."""

from __future__ import annotations

from shuffledeploy.compiler.bundle.manifest import Manifest, Standalone
from shuffledeploy.compiler.standalone.c_interface import readable_in_c
from shuffledeploy.model.errors import UsageError


def network_description(manifest: Manifest, alone: Standalone) -> str:
    """Write ``network.h`` for a standalone network.

    Raises
    ------
    UsageError
        If an output is of a type that the runner does not compare.
    """
    if other := {tensor.dtype for tensor in manifest.outputs} - {"float32"}:
        raise UsageError(f"the runner compares float32 outputs, not {', '.join(sorted(other))}")
    tensors = (*manifest.inputs, *manifest.outputs)
    given = ", ".join(f"tensors[{place}]" for place in range(len(tensors)))
    first = manifest.outputs[0].shape
    names = ", ".join(f'"{call}"' for call in alone.calls)
    return "\n".join([
        "#include <stddef.h>",
        f'#include "{alone.header}"',
        f'#define NETWORK_NAME "{readable_in_c(manifest.network)}"',
        f"#define WORKSPACE_BYTES {max(alone.workspace, 1)}",
        f"enum {{ INPUTS = {len(manifest.inputs)}, OUTPUTS = {len(manifest.outputs)},"
        f" KERNEL_CALLS = {len(alone.calls)}, CLASSES = {first[-1] if first else 1} }};",
        f"static const char *const KERNEL_NAMES[] = {{{names}}};",
        "static const struct { size_t bytes; } TENSORS[] = {"
        + ", ".join(f"{{{tensor.bytes}}}" for tensor in tensors) + "};",
        "static inline int run_network(void *const *tensors, void *workspace) {",
        f"  return {alone.name}_run({given}, workspace);",
        "}",
        "static inline int time_network(void *const *tensors, void *workspace, int64_t *ticks) {",
        f"  return {alone.name}_run_timed({given}, workspace, ticks);",
        "}", "",
    ])  # fmt: skip
