"""Which chains of operators stay float32 where the rest of a network computes in another type."""

from __future__ import annotations

import tvm

from shuffledeploy.compiler.ir.attributes import KEPT_FLOAT32
from shuffledeploy.compiler.passes.graph.epilogues import Chain, find_chains
from shuffledeploy.compiler.passes.graph.lower_to_kernels import is_covered


def layer_chains(module: tvm.IRModule) -> tuple[Chain, ...]:
    """List what will be kernels of layers, in an order that the module alone decides.

    Parameters
    ----------
    module : tvm.IRModule
        Float32, batch norms folded, layouts chosen.

    Returns
    -------
    tuple of Chain
        An attribute names layers by their places in it.
    """
    return tuple(find_chains(module, is_covered).values())


def kept_chains(module: tvm.IRModule) -> tuple[Chain, ...]:
    """Give those of :func:`layer_chains` that the module's attribute `KEPT_FLOAT32` names."""
    places = [int(place) for place in (module.attrs or {}).get(KEPT_FLOAT32, ())]
    if not places:
        return ()
    chains = layer_chains(module)
    return tuple(chains[place] for place in places)
