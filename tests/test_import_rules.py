"""Data moves one way, model to compile to deploy, and so do imports; no circles between rooms."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[1]
PACKAGES = {"compiler": "compile", "deploy": "deploy", "model": "model"}
#: Commands in which the compiler and the devices meet.
MEETING = {"compile/tune.py", "compile/validate_score.py", "compile/validate_silicon.py"}

pytestmark = pytest.mark.smoke


def _files() -> list[Path]:
    return [p for folder in PACKAGES.values() for p in sorted((PROJECT / folder).rglob("*.py"))]


def _imports(path: Path) -> list[str]:
    """List the project's files that a file imports, also inside of functions, not for types."""
    found: list[str] = []

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            return
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("shuffledeploy."):
            package, *rest = (node.module or "").split(".")[1:]
            base = "/".join([PACKAGES.get(package, package), *rest])
            for alias in node.names:
                for place in (f"{base}.py", f"{base}/{alias.name}.py"):
                    if (PROJECT / place).is_file():
                        found.append(place)
                        break
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(encoding="utf-8")))
    return found


def _room(file: str) -> str:
    """Name the room of a file: its folder; a folder that has folders is a hall of single files."""
    folder = (PROJECT / file).parent
    inner = [p for p in folder.iterdir() if p.is_dir() and any(p.glob("*.py"))]
    return file if inner else str(folder.relative_to(PROJECT))


def test_imports_go_from_model_to_compile_to_deploy() -> None:
    order = ["model", "compile", "deploy"]
    for path in _files():
        file = str(path.relative_to(PROJECT))
        if file in MEETING:
            continue
        for imported in _imports(path):
            here, there = (order.index(name.split("/")[0]) for name in (file, imported))
            assert there <= here, f"{file} imports {imported}"


def test_no_rooms_import_each_other_in_a_circle() -> None:
    doors: dict[str, dict[str, str]] = defaultdict(dict)
    for path in _files():
        file = str(path.relative_to(PROJECT))
        for imported in _imports(path):
            here, there = _room(file), _room(imported)
            if here != there and not imported.endswith("__init__.py"):
                doors[here][there] = f"{file} -> {imported}"

    def walk(room: str, way: tuple[str, ...]) -> None:
        for other, door in doors.get(room, {}).items():
            assert other not in way, f"a circle: {' | '.join((*way, other))}; {door}"
            if other not in done:
                walk(other, (*way, other))
        done.add(room)

    done: set[str] = set()
    for room in list(doors):
        if room not in done:
            walk(room, (room,))


def test_ir_stands_on_nothing_and_bundles_need_no_tvm() -> None:
    for path in (PROJECT / "compile" / "ir").glob("*.py"):
        assert all(name.startswith("compile/ir/") for name in _imports(path)), path
    for path in (PROJECT / "compile" / "bundle").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import tvm" not in text
        assert "import torch" not in text


def test_no_two_files_share_a_name_and_none_hides_a_module() -> None:
    names = [p.name for p in _files() if p.name != "__init__.py"]
    assert sorted(set(names)) == sorted(names)
    # `python compile/tune.py` puts `compile/` first on the path.
    import sys

    for folder in PACKAGES.values():
        for entry in (PROJECT / folder).iterdir():
            name = entry.stem if entry.suffix == ".py" else entry.name
            assert name not in sys.stdlib_module_names, entry
            assert name not in {"numpy", "torch", "tvm", "rich", "msgspec", "PIL", "onnx"}, entry
