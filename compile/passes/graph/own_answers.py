"""Each answer is written to memory of its own.

Before::

    main(x) = x
    main(x) = reshape(x)

After::

    main(x) = copy(x)
    main(x) = copy(reshape(x))
"""

from __future__ import annotations

from typing import Any

import tvm
from tvm import relax, te

from shuffledeploy.compiler.ir.graph import (
    ENTRY,
    bindings_of,
    constant_of,
    operator,
    rebuild,
    substitute,
)

# What gives another shape of the same memory.
_VIEW = "relax.reshape"


def own_answers(module: tvm.IRModule) -> tvm.IRModule:
    """Copy the answers of a lowered program that are an input or a constant, or views of one."""
    definitions, parameters = dict(bindings_of(module)), set(module[ENTRY].params)

    def is_given(expr: Any) -> bool:
        value = _resolved(expr, definitions)
        if constant_of(value) is not None or value in parameters:
            return True
        return operator(value) == _VIEW and is_given(value.args[0])

    result = _resolved(module[ENTRY].body.body, definitions)
    answers = list(result.fields) if isinstance(result, relax.Tuple) else [module[ENTRY].body.body]
    given = [is_given(answer) for answer in answers]
    if not any(given):
        return module
    kept: dict[relax.Var, Any] = {}

    def emit(builder: relax.BlockBuilder, variable: relax.Var, value: Any) -> None:
        kept[variable] = builder.emit(substitute(value, lambda v: kept.get(v, v)))

    def finish(builder: relax.BlockBuilder, _: Any) -> Any:
        new = [substitute(answer, lambda v: kept.get(v, v)) for answer in answers]
        for place, copied in enumerate(given):
            if copied:
                new[place] = builder.emit_te(_copy, new[place], primfunc_name_hint="copy")
        return relax.Tuple(new) if isinstance(result, relax.Tuple) else new[0]

    return rebuild(module, emit, finish)


def _resolved(expr: Any, definitions: dict[relax.Var, Any]) -> Any:
    """Follow a variable to what it stands for."""
    while isinstance(expr, relax.Var) and expr in definitions:
        expr = definitions[expr]
    return expr


def _copy(x: te.Tensor) -> te.Tensor:
    return te.compute(x.shape, x, name="copy")
