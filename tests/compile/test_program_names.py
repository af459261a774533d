"""Names in a saved program become code: those that are more than names are refused or left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from programs import Held, edited

from shuffledeploy.compiler.frontend.program import import_program, load_program
from shuffledeploy.model.errors import UsageError

#: What stands in the edits for a name that leaves a file behind where it is run.
CODE = "CODE"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "held.pt2"
    torch.export.save(torch.export.export(Held().eval(), (torch.zeros(1, 3, 4, 4),)), path)
    return path


def code(mark: Path, name: str = "x") -> str:
    return f"{name}=__import__('pathlib').Path({str(mark)!r}).touch()"


def attacked(saved: Path, tmp_path: Path, edit: Callable[[Any], Any]) -> Path:
    """Edit the program's JSON and put code for each `CODE` in it."""

    def change(program: Any) -> Any:
        text = json.dumps(edit(program) or program)
        assert CODE in text
        return json.loads(text.replace(CODE, json.dumps(code(tmp_path / "mark"))[1:-1]))

    return edited(saved, tmp_path / "evil.pt2", change)


def renamed(old: str) -> Callable[[Any], Any]:
    """Rename a value wherever it is named: the program stays in order but for the name."""
    return lambda program: json.loads(json.dumps(program).replace(json.dumps(old), f'"{CODE}"'))


def graph(program: Any) -> Any:
    return program["graph_module"]["graph"]


def inner(program: Any) -> Any:
    return graph(program)["nodes"][0]["inputs"][1]["arg"]["as_graph"]["graph"]


def call(program: Any) -> Any:
    return program["graph_module"]["module_call_graph"][0]["signature"]


def argument(program: Any, kind: str, value: Any) -> None:
    inner(program)["nodes"][0]["inputs"].append({"name": "groups", "arg": {kind: value}, "kind": 1})


def spec(program: Any, kind: str, key: str) -> None:
    specs = program["graph_module"]["signature"]["input_specs"]
    next(s[kind] for s in specs if kind in s)[key] = CODE


def constant_input(program: Any) -> None:
    program["graph_module"]["signature"]["input_specs"][-1] = {
        "constant_input": {"name": CODE, "value": {"as_int": 1}}
    }
    graph(program)["inputs"][-1] = {"as_int": 1}


def keyword_tree(program: Any) -> None:
    leaf = {"type": None, "context": None, "children_spec": []}
    args = {"type": "builtins.tuple", "context": "null", "children_spec": []}
    kwargs = {"type": "builtins.dict", "context": f'["{CODE}"]', "children_spec": [leaf]}
    root = {"type": "builtins.tuple", "context": "null", "children_spec": [args, kwargs]}
    call(program)["in_spec"] = json.dumps([1, root])


def imported_tree(program: Any) -> None:
    context = json.dumps({"__enum__": True, "fqn": f"this:{CODE}", "name": "x"})
    root = {"type": "builtins.tuple", "context": context, "children_spec": []}
    call(program)["out_spec"] = json.dumps([1, root])


def foreign_tree(program: Any) -> None:
    call(program)["out_spec"] = json.dumps(
        [1, {"type": f"collections.{CODE}", "context": "[]", "children_spec": []}]
    )


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "input": (renamed("x"), r"inputs.*\.name"),
    "parameter's value": (renamed("p_conv_weight"), r"inputs.*\.name"),
    "inner value": (renamed("conv2d"), r"graph\.(nodes|outputs).*name"),
    "value": (renamed("add"), r"outputs.*\.name"),
    "node": (lambda p: inner(p)["nodes"][0].update(name=CODE), r"nodes.*\.name"),
    "subgraph": (renamed("submod_1"), r"as_graph\.name"),
    "argument": (lambda p: graph(p)["nodes"][0]["inputs"][0].update(name=CODE, kind=2), "inputs"),
    "parameter": (lambda p: spec(p, "parameter", "parameter_name"), "parameter_name"),
    "buffer": (lambda p: spec(p, "buffer", "buffer_name"), "buffer_name"),
    "number": (constant_input, r"constant_input\.name"),
    "argument of forward": (
        lambda p: call(p).update(forward_arg_names=[CODE]), "forward_arg_names"
    ),
    "keyword": (keyword_tree, "in_spec"),
    "enumeration": (imported_tree, "out_spec"),
    "type of output": (foreign_tree, "out_spec"),
    "operator": (lambda p: inner(p)["nodes"][0].update(target=CODE), "target"),
    "operator as argument": (lambda p: argument(p, "as_operator", CODE), "as_operator"),
    "object as argument": (
        lambda p: argument(p, "as_custom_obj", {"name": CODE, "class_fqn": CODE}), "as_custom_obj"
    ),
    "object as input": (
        lambda p: p["graph_module"]["signature"]["input_specs"].append(
            {"custom_obj": {"arg": {"name": CODE, "class_fqn": CODE}, "custom_obj_name": CODE}}
        ),
        "custom_obj",
    ),
    "device": (lambda p: argument(p, "as_device", {"type": CODE}), r"as_device\.type"),
    "number by name": (lambda p: argument(p, "as_sym_int", {"as_name": CODE}), "as_sym_int"),
    "extent": (
        lambda p: graph(p)["sym_int_values"].update(s={"as_expr": {"expr_str": CODE}}),
        "dynamic shapes",
    ),
    "verifier": (lambda p: p.update(verifiers=[CODE]), "verifiers"),
}  # fmt: skip


@pytest.mark.parametrize("field", REFUSED)
def test_code_for_a_name_is_refused_and_the_field_named(
    saved: Path, tmp_path: Path, field: str
) -> None:
    edit, message = REFUSED[field]
    path = attacked(saved, tmp_path, edit)
    with pytest.raises(UsageError, match=message) as raised:
        load_program(path)
    assert not (tmp_path / "mark").exists()
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


LEFT_OUT: dict[str, Callable[[Any], Any]] = {
    "guards": lambda p: p.update(guards_code=[CODE]),
    "stack trace": lambda p: inner(p)["nodes"][0]["metadata"].update(stack_trace=f"\n{CODE}"),
    "modules": lambda p: inner(p)["nodes"][0]["metadata"].update(nn_module_stack=CODE),
    "sources": lambda p: inner(p)["nodes"][0]["metadata"].update(source_fn_stack=f"x,torch.{CODE}"),
    "function": lambda p: inner(p)["nodes"][0]["metadata"].update(torch_fn=CODE),
    "ranges": lambda p: p.update(range_constraints={CODE: {"min_val": 0, "max_val": 1}}),
    "counted ranges": lambda p: p.update(
        range_constraints={"u999999999999": {"min_val": 0, "max_val": 1}}, torch_version=CODE
    ),
    "metadata": lambda p: p["graph_module"].update(metadata={"custom": CODE}),
    "named tuples": lambda p: p["graph_module"].update(
        treespec_namedtuple_fields={CODE: {"field_names": [CODE]}}
    ),
    "objects": lambda p: graph(p).update(
        custom_obj_values={"x": {"name": CODE, "class_fqn": CODE}}
    ),
    "inner modules": lambda p: p["graph_module"]["module_call_graph"].append(
        {"fqn": CODE, "signature": None}
    ),
}


@pytest.mark.parametrize("field", LEFT_OUT)
def test_code_in_a_field_that_is_left_out_does_not_run(
    saved: Path, tmp_path: Path, field: str
) -> None:
    exported = load_program(attacked(saved, tmp_path, LEFT_OUT[field]))
    exported.module()(torch.ones(1, 3, 4, 4))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "target",
    [
        "torch.os.system",
        "torch.hub.load",
        "torch.load",
        "torch.ops.load_library",
        "torch.ops.aten.__class__.default",
        "torch.ops.aten.relu.__class__",
        "torch.ops.aten.relu.overloads",
        "torch.ops.aten.relu___.default",
        "torch.ops.aten.relu.nothing",
        "torch.ops.aten.save.default",
        "torch.ops.aten.from_file.default",
        "torch.ops.higher_order.triton_kernel_wrapper_functional",
        "math.sin",
        "_operator.methodcaller",
        "builtins.eval",
        "#extension:eval",
        "torch.ops.mine.twice.default",
        "torch.ops.aten.relu.default\n",
    ],
)
def test_operators_that_are_not_importable_are_named(
    saved: Path, tmp_path: Path, target: str
) -> None:
    path = edited(saved, tmp_path / "op.pt2", lambda p: inner(p)["nodes"][0].update(target=target))
    with pytest.raises(UsageError, match="operator") as raised:
        load_program(path)
    assert repr(target) in str(raised.value)


@pytest.mark.parametrize("name", ["x", "bild", "изображение", "画像", "input", "match"])
def test_names_in_any_script_load(saved: Path, tmp_path: Path, name: str) -> None:
    path = edited(
        saved,
        tmp_path / "named.pt2",
        lambda p: json.loads(json.dumps(p).replace('"x"', json.dumps(name))),
    )
    (spec,) = import_program(load_program(path)).inputs
    assert spec.name == name


@pytest.mark.parametrize(
    "name",
    ["", "a b", "a.b", "1", "x\n", "class", "None", "__import__", "__x", "torch", "self", "inf",
     "ﬁ", "ｅval", "x" * 2000, "x\x00"],
)  # fmt: skip
def test_names_that_are_not_plain_are_refused(saved: Path, tmp_path: Path, name: str) -> None:
    path = edited(
        saved,
        tmp_path / "named.pt2",
        lambda p: json.loads(json.dumps(p).replace('"x"', json.dumps(name))),
    )
    with pytest.raises(UsageError, match="not a plain name"):
        load_program(path)


@pytest.mark.parametrize("key", ["as_\x1b[2J", "as_\nlines", "as_\u202e", "as_\ud800"])
def test_what_is_refused_does_not_reach_the_terminal_as_it_is(
    saved: Path, tmp_path: Path, key: str
) -> None:
    path = edited(saved, tmp_path / "key.pt2", lambda p: argument(p, key, 1))
    with pytest.raises(UsageError, match=r"cannot be read as a torch\.export program") as raised:
        load_program(path)
    assert str(raised.value).isprintable()
