"""Which names of a saved program are plain: PyTorch writes Python from them and compiles it."""

from __future__ import annotations

import functools
import keyword
import re
import unicodedata

import torch

from shuffledeploy.compiler.frontend.core_program import decomposable, importable

LONGEST_NAME = 1000

#: What the code that PyTorch writes from a graph means something else by.
TAKEN = frozenset({"self", "torch", "device", "inf", "nan", "NoneType", "fx_pytree", "pytree"})

#: Operators that hold graphs; what they hold is checked as the outermost graph is.
HOLDERS = frozenset({"wrap_with_set_grad_enabled", "wrap_with_autocast", "cond"})

_OPERATOR = re.compile(
    r"torch\.ops\.(?:aten\.(?P<plain>\w+)\.(?P<overload>\w+)|higher_order\.(?P<holder>\w+))"
)


def check_name(name: str) -> None:
    """Check the name of a value, an input or a subgraph: it stands in the code as it is.

    Names in any script pass, and names of builtins, which the code does not use (``input`` is a
    common one).

    Raises
    ------
    ValueError
        It is no identifier, is a keyword, is special to Python (``__name__``) or to PyTorch's code,
        or Python would read it as another name (NFKC).
    """
    if (
        not name.isidentifier()
        or len(name) > LONGEST_NAME
        or keyword.iskeyword(name)
        or name.startswith("__")
        or name in TAKEN
        or unicodedata.normalize("NFKC", name) != name
    ):
        raise ValueError(f"{name[:40]!r} is not a plain name")


def check_argument_name(name: str) -> None:
    """Check the name of an operator's argument: empty, or an identifier (`self` and `from` are).

    Raises
    ------
    ValueError
        It is neither.
    """
    if name and (not re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) or len(name) > LONGEST_NAME):
        raise ValueError(f"{name[:40]!r} is not a plain name of an argument")


def check_path(path: str) -> None:
    """Check the name of a weight or a key: words, dashes and spaces between dots (``conv-1.0.w``).

    Raises
    ------
    ValueError
        It is something else, or a part of it is special to Python.
    """
    if (
        not re.fullmatch(r"[\w -]+(?:\.[\w -]+)*", path)
        or len(path) > LONGEST_NAME
        or any(part.startswith("__") for part in path.split("."))
    ):
        raise ValueError(f"{path[:40]!r} is not a plain dotted name")


def check_operator(target: str) -> None:
    """Check that an operator is one of PyTorch's that TVM takes, as it is or decomposed.

    PyTorch looks its name up by attributes from ``torch``, ``math`` and ``operator`` on, whatever
    they lead to.

    Raises
    ------
    ValueError
        It is not; the message names it.
    """
    match = _OPERATOR.fullmatch(target)
    if match is None:
        raise ValueError(f"the operator {target[:80]!r} is not PyTorch's own")
    if match["holder"] not in HOLDERS and not _is_importable(match["plain"], match["overload"]):
        raise ValueError(f"TVM cannot import the operator {target[:80]!r}")


def _is_importable(name: str | None, overload: str | None) -> bool:
    operator = None if name is None else getattr(torch.ops.aten, name, None)
    # Else it is an attribute of the operator in Python, such as its class.
    is_operator = isinstance(operator, torch._ops.OpOverloadPacket)
    if name is None or not is_operator or overload not in operator.overloads():  # type: ignore[union-attr]
        return False
    # Operators in place (`relu_`) are replaced by what they change, before TVM sees them.
    if {name, name.rstrip("_")} & _importable():
        return True
    return not name.startswith(("_", "fbgemm")) and _is_composite(f"aten::{name}.{overload}")


def _is_composite(name: str) -> bool:
    """Whether PyTorch writes an operator as others, whatever it is run on."""
    known, has = torch._C._dispatch_has_kernel, torch._C._dispatch_has_kernel_for_dispatch_key
    name = name.removesuffix(".default")
    return known(name) and has(name, "CompositeImplicitAutograd")


@functools.cache
def _importable() -> frozenset[str]:
    """List the operators, without their overloads, that are converted or decomposed."""
    return decomposable() | {name.split(".")[0] for name in importable()}
