"""Elements beside each other that a tile loads one by one are loaded as vectors, on AArch64.

The first convolution reads the network's input as it is, channel by channel, so that columns of a
row stand beside each other. Groups of 10 channels fill no whole vectors, and are loaded one by one,
too. Before::

    total[0] = total[0] + broadcast(x[i]) * w[0:4]
    total[1] = total[1] + broadcast(x[i + 2]) * w[0:4]      # a window further, stride 2
    total[0] = total[0] + broadcast(x[i + 1]) * w[4:8]      # a column further

After::

    columns = x[i:i + 4]
    total[0] = total[0] + broadcast(columns[0]) * w[0:4]
    total[1] = total[1] + broadcast(columns[2]) * w[0:4]
    total[0] = total[0] + broadcast(columns[1]) * w[4:8]

A multiply-add picks a lane by itself: one load takes the place of four. What may lie outside of the
image is chosen once, without a branch: what is loaded there is the nearest pixel. Half precision is
left as it is: a multiply-add of halves picks lanes of the first sixteen registers only.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import tvm
import tvm.sym
from tvm import tirx
from tvm_ffi import structural_equal, structural_map, structural_walk

from shuffledeploy.compiler.ir.attributes import CONVOLUTION, WORDS, attribute, kind_of
from shuffledeploy.compiler.ir.memory_layout import FLOAT
from shuffledeploy.compiler.ir.tir import is_conditional, picked, with_values

#: Elements of a vector that is loaded, of which at least two have to be asked for.
LANES = 4


def reads_one_by_one(function: tirx.PrimFunc) -> bool:
    """Whether a kernel is a convolution whose groups read no whole vectors of channels.

    Words of int8 are read by other rules.
    """
    if kind_of(function) != CONVOLUTION or attribute(function, WORDS) is not None:
        return False
    run = int(attribute(function, "run"))
    return run == 0 or run % LANES != 0


def load_neighbours(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Load neighbours as vectors in the straight pieces of a lowered kernel."""
    written: list[Any] = []
    structural_walk(function.body, (tirx.BufferStore, lambda store: written.append(store.buffer)))

    def rewritten(statements: tirx.SeqStmt) -> Any:
        return _Piece(statements, written).rewritten()

    return function.with_body(structural_map(function.body, (tirx.SeqStmt, rewritten)))


@dataclasses.dataclass(frozen=True)
class _Load:
    """A load of one element: where it stands in the piece, and how far behind the first one."""

    position: int
    load: Any
    distance: int


class _Piece:
    """Statements that follow each other.

    Parameters
    ----------
    statements : tirx.SeqStmt
        What to rewrite.
    written : list of buffer
        What the kernel writes: loads of it stay where they are.
    """

    def __init__(self, statements: tirx.SeqStmt, written: list[Any]) -> None:
        self._statements = statements
        self._written = written
        self._analyzer = tvm.sym.Analyzer()
        self._known: dict[Any, Any] = {}
        #: What is bound before each statement.
        self._bound: dict[int, list[Any]] = {}
        #: Elements, and what is taken in their places.
        self._lanes: list[tuple[Any, Any]] = []
        self._chosen: list[tuple[Any, Any]] = []

    def rewritten(self) -> Any:
        """Give the statements with loads of neighbours as vectors."""
        for group in self._groups():
            self._load_together(group)
        if not self._lanes:
            return self._statements
        self._choose_once()
        new: list[Any] = []
        for position, statement in enumerate(self._statements.seq):
            new += self._bound.get(position, [])
            takes = isinstance(statement, tirx.BufferStore)
            taken = structural_map(statement, (tirx.Broadcast, self._taken)) if takes else statement
            new.append(taken)
        return tirx.SeqStmt(new)

    def _taken(self, broadcast: Any) -> Any:
        """Take what was bound in the place of an element."""
        for old, value in (*self._lanes, *self._chosen):
            if broadcast.value.same_as(old):
                return tirx.Broadcast(value, broadcast.lanes)
        return broadcast

    def _choose_once(self) -> None:
        """Bind each element that may lie outside of the image, where it is first asked for."""
        known: list[tuple[Any, Any]] = []
        for position, statement in enumerate(self._statements.seq):
            if not isinstance(statement, tirx.BufferStore):
                continue
            for value in _broadcast(statement.value):
                if not is_conditional(value):
                    continue
                same = next((v for old, v in known if structural_equal(old, value)), None)
                if same is None:
                    same = tirx.Var("chosen", value.ty)
                    known.append((value, same))
                    chosen = tirx.Bind(same, tirx.Select(*value.args))
                    self._bound.setdefault(position, []).append(chosen)
                self._chosen.append((value, same))

    def _groups(self) -> list[list[_Load]]:
        """Group loads of one buffer whose distances are known."""
        groups: list[tuple[Any, Any, list[_Load]]] = []
        for position, statement in enumerate(self._statements.seq):
            if isinstance(statement, tirx.Bind):
                self._known[statement.var] = with_values(statement.value, self._known)
            if not isinstance(statement, tirx.BufferStore):
                continue
            for load in _broadcast(statement.value):
                if not isinstance(load, tvm.ir.TensorLoad) or len(load.indices) != 1:
                    continue
                if str(load.source.dtype) != FLOAT:
                    continue
                if any(load.source.same_as(buffer) for buffer in self._written):
                    continue
                index = with_values(load.indices[0], self._known)
                for buffer, first, members in groups:
                    if not load.source.same_as(buffer):
                        continue
                    distance = self._analyzer.simplify(index - first)
                    if isinstance(distance, tirx.IntImm):
                        members.append(_Load(position, load, int(distance)))
                        break
                else:
                    groups.append((load.source, index, [_Load(position, load, 0)]))
        return [members for _, _, members in groups]

    def _load_together(self, group: list[_Load]) -> None:
        """Choose vectors for a group; note where they are loaded and what takes whose place."""
        for start in _starts(sorted({member.distance for member in group})):
            members = [m for m in group if start <= m.distance < start + LANES]
            # What another vector took already is not loaded again.
            members = [m for m in members if not any(m.load.same_as(old) for old, _ in self._lanes)]
            if len({member.distance for member in members}) < 2:
                continue
            first = min(members, key=lambda member: member.position)
            base = first.load.indices[0] + (start - first.distance)
            loaded = tirx.BufferLoad(first.load.source, [tirx.Ramp(base, 1, LANES)])
            columns = tirx.Var("columns", loaded.ty)
            self._bound.setdefault(first.position, []).append(tirx.Bind(columns, loaded))
            self._lanes += [(m.load, picked([columns], [m.distance - start])) for m in members]


def _starts(distances: list[int]) -> list[int]:
    """Tell where vectors begin that cover elements.

    What lies between two elements of a tensor is of the tensor; what lies beyond them may not be.
    """
    starts: list[int] = []
    last = distances[-1] - LANES + 1
    for distance in distances:
        if not starts or distance >= starts[-1] + LANES:
            starts.append(min(distance, last))
    return starts if last >= distances[0] else []


def _broadcast(value: Any) -> list[Any]:
    """List the elements that an expression takes for all lanes of a vector."""
    found: list[Any] = []
    structural_walk(value, (tirx.Broadcast, lambda node: found.append(node.value)))
    return found
