"""What is read of a saved program's graph: the records of its JSON, each field checked.

They follow PyTorch's schema, and leave out what a program of fixed shapes and plain tensors does
not need. A field that is not listed is not passed on to PyTorch, but for the kinds of arguments,
inputs and outputs: one that is not listed is refused. So are names that would become code.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from msgspec import UNSET, UnsetType, field

from shuffledeploy.compiler.frontend.program_tensors import (
    ArgumentName,
    Choice,
    Code,
    DottedName,
    Float,
    Name,
    Operator,
    Symbolic,
    SymbolicArgument,
    TensorDevice,
    TensorMeta,
    TensorRecord,
    Text,
    Tree,
    Whole,
)

#: ResNeXt-50 has 180. PyTorch and TVM take some 2 ms for a node.
MOST_NODES = 10_000


class TensorArgument(TensorRecord):
    """The name of a tensor."""

    name: Name


class OptionalTensor(Choice):
    """A tensor or none."""

    as_tensor: TensorArgument | UnsetType = UNSET
    as_none: bool | UnsetType = UNSET


class GraphArgument(TensorRecord):
    """A graph that an operator runs."""

    name: Name
    graph: Graph


class Argument(Choice):
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
    as_device: TensorDevice | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET
    as_bools: list[bool] | UnsetType = UNSET
    as_graph: GraphArgument | UnsetType = UNSET
    as_optional_tensor: OptionalTensor | UnsetType = UNSET
    as_optional_tensors: list[OptionalTensor] | UnsetType = UNSET


class NamedArgument(TensorRecord):
    """An argument of an operator."""

    name: ArgumentName
    arg: Argument
    kind: Code | None = None


class Node(TensorRecord):
    """A call of an operator. Its metadata (stack traces, modules, functions) are left out."""

    target: Operator
    inputs: list[NamedArgument]
    outputs: list[Argument]
    metadata: dict[str, str] = field(default_factory=dict)
    is_hop_single_tensor_return: bool | None = None
    name: Name | None = None

    def __post_init__(self) -> None:
        self.metadata = {}


class Graph(TensorRecord):
    """Calls in their order, and the kinds of their tensors."""

    inputs: list[Argument]
    outputs: list[Argument]
    nodes: list[Node]
    tensor_values: dict[str, TensorMeta]
    sym_int_values: dict[str, Symbolic]
    sym_bool_values: dict[str, Symbolic]
    is_single_tensor_return: bool = False
    sym_float_values: dict[str, Symbolic] = field(default_factory=dict)

    def walk(self) -> Iterator[Node]:
        """Yield the nodes, and those of the graphs they hold."""
        for node in self.nodes:
            yield node
            for argument in node.inputs:
                if isinstance(argument.arg.as_graph, GraphArgument):
                    yield from argument.arg.as_graph.graph.walk()


class Parameter(TensorRecord):
    """An input that is a parameter."""

    arg: TensorArgument
    parameter_name: DottedName


class Buffer(TensorRecord):
    """An input that is a buffer."""

    arg: TensorArgument
    buffer_name: DottedName
    persistent: bool


class Constant(TensorRecord):
    """An input that is a constant tensor."""

    arg: TensorArgument
    tensor_constant_name: DottedName


class Number(Choice):
    """The value of an input that is no tensor."""

    as_none: bool | UnsetType = UNSET
    as_int: Whole | UnsetType = UNSET
    as_float: Float | UnsetType = UNSET
    as_string: Text | UnsetType = UNSET
    as_bool: bool | UnsetType = UNSET


class NumberInput(TensorRecord):
    """An input that is no tensor."""

    name: Name
    value: Number


class User(TensorRecord):
    """What a user gives or gets."""

    arg: Argument


class Input(Choice):
    """What one input is."""

    user_input: User | UnsetType = UNSET
    parameter: Parameter | UnsetType = UNSET
    buffer: Buffer | UnsetType = UNSET
    tensor_constant: Constant | UnsetType = UNSET
    constant_input: NumberInput | UnsetType = UNSET


class BufferMutation(TensorRecord):
    """An output that a buffer becomes."""

    arg: TensorArgument
    buffer_name: DottedName


class InputMutation(TensorRecord):
    """An output that an input becomes."""

    arg: TensorArgument
    user_input_name: Name


class Output(Choice):
    """What one output is."""

    user_output: User | UnsetType = UNSET
    buffer_mutation: BufferMutation | UnsetType = UNSET
    user_input_mutation: InputMutation | UnsetType = UNSET


class Signature(TensorRecord):
    """What the inputs and outputs are, in their order."""

    input_specs: list[Input]
    output_specs: list[Output]


class CallSignature(TensorRecord):
    """How a module is called."""

    inputs: list[Argument]
    outputs: list[Argument]
    in_spec: Tree
    out_spec: Tree
    forward_arg_names: list[Name] | None = None


class ModuleCall(TensorRecord):
    """A module and how it is called."""

    fqn: str
    signature: CallSignature | None = None


class GraphModule(TensorRecord):
    """The graph and its signature. Of modules only the outermost matters."""

    graph: Graph
    signature: Signature
    module_call_graph: list[ModuleCall]

    def __post_init__(self) -> None:
        self.module_call_graph = [call for call in self.module_call_graph if not call.fqn]


class Version(TensorRecord):
    """Of the schema."""

    major: Whole
    minor: Whole


class SavedProgram(TensorRecord):
    """The whole program. Ranges of extents are left out: fixed shapes have none."""

    graph_module: GraphModule
    opset_version: dict[str, Whole]
    schema_version: Version
    range_constraints: dict[str, Any] = field(default_factory=dict)
    verifiers: list[Literal["", "ATEN", "TRAINING"]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.range_constraints = {}
        count = sum(1 for _ in self.graph_module.graph.walk())
        if count > MOST_NODES:
            raise ValueError(f"it has {count} nodes, more than the {MOST_NODES} that are taken")
