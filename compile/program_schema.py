"""What is read of a saved program's graph: the records of its JSON, each field checked.

They follow PyTorch's schema, and leave out what a program of fixed shapes and plain tensors does
not need. A field that is not listed is not passed on to PyTorch, but for the kinds of arguments,
inputs and outputs: one that is not listed is refused. So are names that would become code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

#: ResNeXt-50 has 180. PyTorch and TVM take some 2 ms for a node.
MOST_NODES = 10_000
#: Elements of one tensor, and of all weights together.
MOST_ELEMENTS = 2**31
#: PyTorch's number for the layout of tensors that are not sparse.
STRIDED = 7


class Name(str):
    """A name that stands in code."""


class ArgumentName(str):
    """A name of an operator's argument, or nothing."""


class DottedName(str):
    """A name of a weight, or a key of a dict."""


class Operator(str):
    """A name that leads to an operator."""


class Tree(str):
    """How inputs or outputs are nested: JSON within the JSON."""


class _Record(msgspec.Struct):
    """A record of which fields that are not listed are left out."""


class _Choice(msgspec.Struct, forbid_unknown_fields=True):
    """A record of which one field is there, and none that is not listed."""

    def __post_init__(self) -> None:
        given = sum(getattr(self, field) is not UNSET for field in self.__struct_fields__)
        if given != 1:
            raise ValueError(f"one of {', '.join(self.__struct_fields__)} is expected, not {given}")


Whole = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
Extent = Annotated[int, Meta(ge=0, le=2**40)]
Code = Annotated[int, Meta(ge=0, le=50)]
Float = float | Literal["Infinity", "-Infinity", "NaN"]
Text = Annotated[str, Meta(max_length=1000)]


class Symbolic(_Choice):
    """An extent or a number; an expression is refused."""

    as_int: Extent | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET
    as_float: Float | UnsetType = UNSET
    as_expr: Any = UNSET

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.as_expr is not UNSET:
            text = self.as_expr.get("expr_str") if isinstance(self.as_expr, dict) else ""
            raise ValueError(
                f"it has dynamic shapes ({str(text)[:40]!r}): export it with fixed shapes"
            )


class SymbolicArgument(_Choice):
    """A number, or the name of one."""

    as_name: Name | UnsetType = UNSET
    as_int: Whole | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET
    as_float: Float | UnsetType = UNSET


class Device(_Record):
    """Where a tensor is: only here."""

    type: Literal["cpu"]
    index: Annotated[int, Meta(ge=0, le=127)] | None = None


class TensorMeta(_Record):
    """Shape and kind of a tensor."""

    dtype: Code
    sizes: Annotated[list[Symbolic], Meta(max_length=32)]
    requires_grad: bool
    device: Device
    strides: Annotated[list[Symbolic], Meta(max_length=32)]
    storage_offset: Symbolic
    layout: Code

    def __post_init__(self) -> None:
        if self.elements() > MOST_ELEMENTS:
            raise ValueError(f"a tensor of more than {MOST_ELEMENTS} elements is not taken")

    def elements(self) -> int:
        """Count the elements."""
        return math.prod(size.as_int for size in self.sizes if isinstance(size.as_int, int))


class TensorArgument(_Record):
    """The name of a tensor."""

    name: Name


class OptionalTensor(_Choice):
    """A tensor or none."""

    as_tensor: TensorArgument | UnsetType = UNSET
    as_none: bool | UnsetType = UNSET


class GraphArgument(_Record):
    """A graph that an operator runs."""

    name: Name
    graph: Graph


class Argument(_Choice):
    """What goes into an operator or comes out of it."""

    as_none: bool | UnsetType = UNSET
    as_tensor: TensorArgument | UnsetType = UNSET
    as_tensors: list[TensorArgument] | UnsetType = UNSET
    as_int: Whole | UnsetType = UNSET
    as_ints: list[Whole] | UnsetType = UNSET
    as_float: Float | UnsetType = UNSET
    as_floats: list[Float] | UnsetType = UNSET
    as_string: Text | UnsetType = UNSET
    as_strings: list[Text] | UnsetType = UNSET
    as_sym_int: SymbolicArgument | UnsetType = UNSET
    as_sym_ints: list[SymbolicArgument] | UnsetType = UNSET
    as_sym_bool: SymbolicArgument | UnsetType = UNSET
    as_sym_float: SymbolicArgument | UnsetType = UNSET
    as_scalar_type: Code | UnsetType = UNSET
    as_memory_format: Code | UnsetType = UNSET
    as_layout: Code | UnsetType = UNSET
    as_device: Device | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET
    as_bools: list[bool] | UnsetType = UNSET
    as_graph: GraphArgument | UnsetType = UNSET
    as_optional_tensor: OptionalTensor | UnsetType = UNSET
    as_optional_tensors: list[OptionalTensor] | UnsetType = UNSET


class NamedArgument(_Record):
    """An argument of an operator."""

    name: ArgumentName
    arg: Argument
    kind: Code | None = None


class Node(_Record):
    """A call of an operator. Its metadata (stack traces, modules, functions) are left out."""

    target: Operator
    inputs: list[NamedArgument]
    outputs: list[Argument]
    metadata: dict[str, str] = {}
    is_hop_single_tensor_return: bool | None = None
    name: Name | None = None

    def __post_init__(self) -> None:
        self.metadata = {}


class Graph(_Record):
    """Calls in their order, and the kinds of their tensors."""

    inputs: list[Argument]
    outputs: list[Argument]
    nodes: list[Node]
    tensor_values: dict[str, TensorMeta]
    sym_int_values: dict[str, Symbolic]
    sym_bool_values: dict[str, Symbolic]
    is_single_tensor_return: bool = False
    sym_float_values: dict[str, Symbolic] = {}

    def walk(self) -> Iterator[Node]:
        """Yield the nodes, and those of the graphs they hold."""
        for node in self.nodes:
            yield node
            for argument in node.inputs:
                if isinstance(argument.arg.as_graph, GraphArgument):
                    yield from argument.arg.as_graph.graph.walk()


class Parameter(_Record):
    """An input that is a parameter."""

    arg: TensorArgument
    parameter_name: DottedName


class Buffer(_Record):
    """An input that is a buffer."""

    arg: TensorArgument
    buffer_name: DottedName
    persistent: bool


class Constant(_Record):
    """An input that is a constant tensor."""

    arg: TensorArgument
    tensor_constant_name: DottedName


class Number(_Choice):
    """The value of an input that is no tensor."""

    as_none: bool | UnsetType = UNSET
    as_int: Whole | UnsetType = UNSET
    as_float: Float | UnsetType = UNSET
    as_string: Text | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET


class NumberInput(_Record):
    """An input that is no tensor."""

    name: Name
    value: Number


class User(_Record):
    """What a user gives or gets."""

    arg: Argument


class Input(_Choice):
    """What one input is."""

    user_input: User | UnsetType = UNSET
    parameter: Parameter | UnsetType = UNSET
    buffer: Buffer | UnsetType = UNSET
    tensor_constant: Constant | UnsetType = UNSET
    constant_input: NumberInput | UnsetType = UNSET


class BufferMutation(_Record):
    """An output that a buffer becomes."""

    arg: TensorArgument
    buffer_name: DottedName


class InputMutation(_Record):
    """An output that an input becomes."""

    arg: TensorArgument
    user_input_name: Name


class Output(_Choice):
    """What one output is."""

    user_output: User | UnsetType = UNSET
    buffer_mutation: BufferMutation | UnsetType = UNSET
    user_input_mutation: InputMutation | UnsetType = UNSET


class Signature(_Record):
    """What the inputs and outputs are, in their order."""

    input_specs: list[Input]
    output_specs: list[Output]


class CallSignature(_Record):
    """How a module is called."""

    inputs: list[Argument]
    outputs: list[Argument]
    in_spec: Tree
    out_spec: Tree
    forward_arg_names: list[Name] | None = None


class ModuleCall(_Record):
    """A module and how it is called."""

    fqn: str
    signature: CallSignature | None = None


class GraphModule(_Record):
    """The graph and its signature. Of modules only the outermost matters."""

    graph: Graph
    signature: Signature
    module_call_graph: list[ModuleCall]

    def __post_init__(self) -> None:
        self.module_call_graph = [call for call in self.module_call_graph if not call.fqn]


class Version(_Record):
    """Of the schema."""

    major: Whole
    minor: Whole


class SavedProgram(_Record):
    """The whole program. Ranges of extents are left out: fixed shapes have none."""

    graph_module: GraphModule
    opset_version: dict[str, Whole]
    schema_version: Version
    range_constraints: dict[str, Any] = {}
    verifiers: list[Literal["", "ATEN", "TRAINING"]] = []

    def __post_init__(self) -> None:
        self.range_constraints = {}
        count = sum(1 for _ in self.graph_module.graph.walk())
        if count > MOST_NODES:
            raise ValueError(f"it has {count} nodes, more than the {MOST_NODES} that are taken")


class Payload(_Record):
    """One weight or constant: where its bytes are, and what they are."""

    path_name: Annotated[str, Meta(pattern=r"^(?:weight|tensor)_[0-9]{1,6}\Z")]
    is_param: bool
    use_pickle: Literal[False]
    tensor_meta: TensorMeta

    def __post_init__(self) -> None:
        if self.tensor_meta.layout != STRIDED:
            raise ValueError("its layout is sparse, which cannot be deployed")


class Payloads(_Record):
    """All weights, or all constants."""

    config: dict[str, Payload]
