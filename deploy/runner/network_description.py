"""What the bench runner has to know of its network, as a C header."""

from __future__ import annotations

from shuffledeploy.compiler.bundle.manifest import Manifest
from shuffledeploy.compiler.bundle.manifest_entries import Standalone
from shuffledeploy.compiler.standalone.c_interface import readable_in_c
from shuffledeploy.model.errors import UsageError


def compares(manifest: Manifest) -> bool:
    """Whether the runner can compare all outputs of a network."""
    return all(tensor.dtype == "float32" for tensor in manifest.outputs)


def network_description(manifest: Manifest, alone: Standalone) -> str:
    """Write ``network.h`` for a standalone network.

    Raises
    ------
    UsageError
        If an output is of a type that the runner does not compare.
    """
    if not compares(manifest):
        types = ", ".join(sorted({tensor.dtype for tensor in manifest.outputs}))
        raise UsageError(f"the runner compares float32 outputs, not {types}")
    tensors = (*manifest.inputs, *manifest.outputs)
    given = ", ".join(f"tensors[{place}]" for place in range(len(tensors)))
    first = manifest.outputs[0].shape
    upper = alone.name.upper()
    return "\n".join([
        "#include <stddef.h>",
        f"#define {upper}_WITH_KERNEL_NAMES",
        f'#include "{alone.header}"',
        f'#define NETWORK_NAME "{readable_in_c(manifest.network)}"',
        f"#define WORKSPACE_BYTES {upper}_WORKSPACE_BYTES",
        f"#define KERNEL_NAMES {alone.name}_kernel_names",
        f"enum {{ INPUTS = {len(manifest.inputs)}, OUTPUTS = {len(manifest.outputs)},"
        f" KERNEL_CALLS = {upper}_KERNEL_CALLS, CLASSES = {first[-1] if first else 1} }};",
        "static const struct { size_t bytes; } TENSORS[] = {"
        + ", ".join(f"{{{tensor.bytes}}}" for tensor in tensors) + "};",
        "static inline int run_network(void *const *tensors, void *workspace) {",
        f"  return {alone.name}_run({given}, workspace);",
        "}",
        "static inline int time_network(void *const *tensors, void *workspace, int64_t *ticks) {",
        f"  return {alone.name}_run_timed({given}, workspace, ticks);",
        "}", "",
    ])  # fmt: skip
