"""What a trace in a log may hold: the steps that this project's schedule templates take.

A trace comes from a file and is applied to a kernel that is then built. TVM knows instructions and
annotations that bring code of their own into a build (``pragma_import_c``, ``pragma_import_llvm``,
intrinsics by name): what no template of `compiler.kernels` writes is refused before TVM sees it.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

# The longest trace of a committed record has 35 instructions, its largest number is 28.
MOST_INSTRUCTIONS = 200
LARGEST_NUMBER = 4096
MOST_OPTIONS = 64
MOST_NODES = 64

_BLOCKS = frozenset({
    "accumulate", "output", "taken", "finished", "partial", "root",
    # Of products, attentions and layer norms.
    "packed_columns",
    "packed_keys", "packed_values", "score_totals", "scores", "largest_of_lanes", "largest",
    "powers", "sum_of_lanes", "sum", "inverse", "shares", "weighted", "written",
    "mean", "squares_of_lanes", "squares", "factor",
})  # fmt: skip
_BLOCK_OF_A_PART = re.compile(r"part_\d{1,3}")
_AXES = frozenset({"g", "kh", "kw", "k", "o"})
#: The one annotation that templates make (`compiler.ir.attributes.SHARED`).
_ANNOTATIONS = frozenset({"shared_vectors"})
_MOST_VARIABLES = 1000
_VARIABLES = frozenset(f"{kind}{i}" for kind in "blv" for i in range(_MOST_VARIABLES))
#: Variables, numbers, and an extent that is left open.
_INPUTS = _VARIABLES | {"None"} | frozenset(range(1, LARGEST_NUMBER + 1))

_PLAIN_TYPES = frozenset({str, int})

Rule = Callable[[list[Any]], bool]


def _number(value: object, least: int = 1, most: int = LARGEST_NUMBER) -> bool:
    return type(value) is int and least <= value <= most


def _options(attributes: list[Any]) -> bool:
    """Whether the attributes of a random variable are numbers, and how likely each is."""
    if len(attributes) != 2 or not all(isinstance(part, list) for part in attributes):
        return False
    options, chances = attributes
    return (
        0 < len(options) == len(chances) <= MOST_OPTIONS
        and all(_number(option, 0) for option in options)
        and all(type(chance) in (int, float) and 0 <= chance <= 1 for chance in chances)
    )


def _block(attributes: list[Any]) -> bool:
    """Whether a block is asked for that a kernel of ours has."""
    if len(attributes) != 2 or not all(isinstance(part, str) for part in attributes):
        return False
    name, function = attributes
    known = name in _BLOCKS or _BLOCK_OF_A_PART.fullmatch(name) is not None
    return known and function == "main"


def _layout(attributes: list[Any]) -> bool:
    """Whether a layout is changed of something that a block reads, nothing padded."""
    return len(attributes) == 4 and _number(attributes[0], 0, 16) and attributes[1:] == [0, None, 0]


def _just(*wanted: Any) -> Rule:
    return lambda attributes: (
        list(wanted) == attributes
        and all(type(a) is type(b) for a, b in zip(attributes, wanted, strict=True))
    )


def _annotation(attributes: list[Any]) -> bool:
    return len(attributes) == 1 and attributes[0] in _ANNOTATIONS


#: What each instruction may have beside variables and results.
_RULES: Mapping[str, Rule] = {
    "Annotate": _annotation,
    "ComputeAt": _just(1, -1),
    "ComputeInline": _just(),
    "DecomposeReduction": _just(),
    "Fuse": _just(1),
    "GetChildBlocks": _just(),
    "GetLoops": _just(),
    "GetSBlock": _block,
    "Reorder": _just(),
    "ReverseComputeAt": _just(1, -1),
    "SampleCategorical": _options,
    "SetScope": _just(0, "local"),
    "Split": _just(True, False),
    "TransformLayout": _layout,
    "Unroll": _just(),
    "Vectorize": _just(),
}


def require_plain(trace: object) -> None:
    """Refuse a trace that a template of ours would not have left.

    Parameters
    ----------
    trace : object
        As it was read from JSON: instructions ``[name, inputs, attributes, results]``, and which
        option each random variable took, ``[instruction, option]``.

    Raises
    ------
    ValueError
        Names the instruction or the annotation.
    """
    if (
        not isinstance(trace, list)
        or len(trace) != 2
        or not all(isinstance(part, list) for part in trace)
    ):
        raise ValueError("its trace is none")
    instructions, decisions = trace
    if max(len(instructions), len(decisions)) > MOST_INSTRUCTIONS:
        raise ValueError(f"its trace has more than {MOST_INSTRUCTIONS} instructions")
    for instruction in instructions:
        _require_plain_instruction(instruction)
    for decision in decisions:
        if not (
            isinstance(decision, list)
            and len(decision) == 2
            and _number(decision[0], 0, len(instructions) - 1)
            and instructions[decision[0]][0] == "SampleCategorical"
            and _number(decision[1], 0, len(instructions[decision[0]][2][0]) - 1)
        ):
            raise ValueError("its trace decides what is not to be decided")


def _require_plain_instruction(instruction: object) -> None:
    if (
        not isinstance(instruction, list)
        or len(instruction) != 4
        or not isinstance(instruction[0], str)
        or not all(isinstance(part, list) for part in instruction[1:])
    ):
        raise ValueError("its trace has an instruction that is none")
    name, inputs, attributes, results = instruction
    rule = _RULES.get(name)
    if rule is None:
        raise ValueError(f"its trace has an instruction that is not ours: {_shown(name)}")
    if not rule(attributes):
        what = "annotation" if name == "Annotate" else "instruction"
        given = attributes[0] if name == "Annotate" and attributes else [name, *attributes]
        raise ValueError(f"its trace has an {what} that is not ours: {_shown(given)}")
    last = inputs[-1] if inputs else None
    plain = inputs[:-1] if name == "TransformLayout" else inputs
    if not _all_in(_INPUTS, plain) or not _all_in(_VARIABLES, results):
        raise ValueError(f"its trace gives {name} something that is not ours")
    if name == "TransformLayout" and not (isinstance(last, str) and _is_plain_map(last)):
        raise ValueError("its trace has a layout that is not ours")


def _all_in(allowed: frozenset[Any], values: list[Any]) -> bool:
    """Whether all values are allowed; truth values and floats are no numbers here."""
    return _PLAIN_TYPES.issuperset(map(type, values)) and allowed.issuperset(values)


@functools.lru_cache(maxsize=256)
def _is_plain_map(text: str) -> bool:
    """Whether a text is TVM's JSON of an index map over the axes of packed weights."""
    try:
        nodes = json.loads(text)["nodes"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    if not isinstance(nodes, list) or len(nodes) > MOST_NODES:
        return False
    return all(_is_plain_node(place, node) for place, node in enumerate(nodes))


#: Fields of the nodes of a map that refer to nodes before them.
_NODES = {
    "ir.Var": {"span", "ty", "name"},
    "ir.IntImm": {"span", "ty", "value"},
    "prim.FloorDiv": {"span", "ty", "a", "b"},
    "prim.FloorMod": {"span", "ty", "a", "b"},
    "tirx.IndexMap": {"initial_indices", "final_indices", "inverse_index_map"},
}
#: What the others hold.
_LEAVES: Mapping[str, Callable[[Any], bool]] = {
    "None": lambda data: data is None,
    "int": _number,
    "ffi.String": lambda data: isinstance(data, str) and data in _AXES,
    "ir.PrimType": lambda data: data == {"span": 0, "dtype": "int32"},
}


def _is_plain_node(place: int, node: object) -> bool:
    """Whether a node is a plain number, axis, quotient or rest made of those that precede it."""
    if not isinstance(node, dict) or not node.keys() <= {"type", "data"}:
        return False
    kind, data = str(node.get("type")), node.get("data")
    if kind in _LEAVES:
        return _LEAVES[kind](data)
    if kind in _NODES and isinstance(data, dict) and set(data) == _NODES[kind]:
        data = list(data.values())
    elif kind != "ffi.Array":
        return False
    return isinstance(data, list) and all(_number(value, 0, place - 1) for value in data)


def _shown(value: object) -> str:
    """Write something from outside so that it fits a line and steers no terminal."""
    return ascii(value)[:80]
