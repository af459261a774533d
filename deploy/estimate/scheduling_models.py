"""Which of LLVM's scheduling models stands for a core: several cores share one.

From ``llvm/lib/Target/AArch64/AArch64Processors.td`` of LLVM 19 (each ``ProcessorModel`` names its
model). llvm-mca was run for all of them on a sample and answered alike where a model is shared.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class SchedulingModel:
    """A model of LLVM's.

    Attributes
    ----------
    name : str
        As LLVM calls it.
    made_for : str
        The core that it describes.
    in_order : bool
        Whether that core executes in order.
    """

    name: str
    made_for: str
    in_order: bool = False


_A53 = SchedulingModel("CortexA53Model", "cortex-a53", in_order=True)
_A55 = SchedulingModel("CortexA55Model", "cortex-a55", in_order=True)
_A57 = SchedulingModel("CortexA57Model", "cortex-a57")
_N1 = SchedulingModel("NeoverseN1Model", "neoverse-n1")

MODELS = {
    "cortex-a35": _A53, "cortex-a53": _A53, "cortex-a55": _A55, "cortex-a57": _A57,
    "cortex-a72": _A57, "cortex-a73": _A57, "cortex-a75": _A57, "cortex-a76": _A57,
    "cortex-a77": _A57, "cortex-a78": _A57, "neoverse-n1": _N1,
}  # fmt: skip


def model_of(core: str) -> str | None:
    """Name the model that stands for a core of ARM's, None where it is not known here."""
    return MODELS[core].name if core in MODELS else None


def describe(core: str) -> str:
    """Say which model a core has, and whose it really is."""
    model = MODELS.get(core)
    if model is None:
        return "none known: ranked by instructions"
    if model.made_for == core:
        return f"{model.name}, its own"
    return f"{model.name}, made for the {model.made_for}"
