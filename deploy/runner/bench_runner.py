"""Builds the bench runner: one static program with a network inside, for any Linux or Android."""

from __future__ import annotations

from pathlib import Path

from shuffledeploy.compiler import native_tools
from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.native_tools import compile_c, zig_version
from shuffledeploy.deploy.board.places import built_once, recipe_hash, step
from shuffledeploy.deploy.runner.network_description import network_description
from shuffledeploy.model.command_output import replaced
from shuffledeploy.model.scratch import scratch_folder

#: C code of what runs on devices.
DEVICE_CODE = Path(__file__).parents[1] / "on_device"
_SOURCE = DEVICE_CODE / "bench_runner.c"


def ensure_c_library(architecture: str) -> None:
    """Build musl for an architecture, unless that was done (20 s)."""

    def build(folder: Path) -> None:
        source = folder / "empty.c"
        source.write_text("int main(void) { return 0; }\n", encoding="ascii")
        with step(f"build a C library for {architecture}"):
            compile_c(source, folder / "empty", program_flags(architecture))

    recipe = recipe_hash(Path(native_tools.__file__), zig_version(), *program_flags(architecture))
    built_once(f"musl-{architecture}-{recipe}", build)


def program_flags(architecture: str) -> tuple[str, ...]:
    """Return how static programs for devices are compiled."""
    return ("-std=c11", "-static", "-s", "-D_GNU_SOURCE", "-target", f"{architecture}-linux-musl")


def build_runner(bundle: Bundle, output: Path) -> None:
    """Compile the runner and link it with a bundle's standalone network.

    Parameters
    ----------
    bundle : Bundle
        Made with ``--standalone``.
    output : Path
        The program; it needs nothing of the device but Linux's kernel, since musl is inside.

    Raises
    ------
    UsageError
        If the bundle has no standalone network, or one that the runner cannot compare.
    """
    alone = bundle.standalone
    with scratch_folder("shuffledeploy-runner-") as folder:
        described = network_description(bundle.manifest, alone)
        (folder / "network.h").write_text(described, encoding="utf-8")
        ensure_c_library(bundle.manifest.architecture)
        includes = [f"-I{place}" for place in (folder, bundle.path, DEVICE_CODE)]
        flags = (*program_flags(bundle.manifest.architecture), *includes)
        compile_c(_SOURCE, output, flags, [bundle.path / alone.object])


def write_runner(bundle: Bundle, path: Path) -> tuple[str, ...]:
    """Write the runner and what it compares with, to be run by hand.

    Returns
    -------
    tuple of str
        What to do with them, in words.

    Raises
    ------
    UsageError
        If the bundle has no standalone network, or the files cannot be written.
    """
    reference = path.with_name(f"{path.name}.reference")
    with replaced(path) as program, replaced(reference) as answers:
        build_runner(bundle, program)
        write_reference(bundle, answers)
    size = path.stat().st_size / 1e6
    return (
        f"{path} ({size:.2f} MB) runs on any {bundle.manifest.architecture} Linux or Android",
        f"./{path.name} --reference {reference.name} --kernels",
    )


def write_reference(bundle: Bundle, path: Path) -> None:
    """Write what the runner compares with: of each case its inputs, then PyTorch's outputs."""
    cases = zip(bundle.reference_inputs(), bundle.reference_outputs(), strict=True)
    with path.open("wb") as stream:
        for inputs, outputs in cases:
            for value in (*inputs, *outputs):
                stream.write(value.tobytes())
