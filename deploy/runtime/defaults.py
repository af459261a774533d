"""What commands do where nothing is said."""

from __future__ import annotations

from shuffledeploy.compiler.ir.memory_layout import FLOAT, INT8
from shuffledeploy.model.folders import BUILD

#: Single runs that a latency is the median of.
RUNS = 200
ALEXNET = "alexnet"
#: Networks of a comparison with the paper.
MODELS = (ALEXNET, "shufflenet-g3-x0.5", "shufflenet-g3-x1", "mobilenet-x1.0")
#: Images of Fashion-MNIST that a device may name differently from PyTorch.
ALLOWED_DISAGREEMENTS = 2
#: The same of a network in half precision, of ten thousand.
ALLOWED_IN_HALF = 10
#: And of one in int8.
ALLOWED_IN_INT8 = 80
#: Where the benchmark keeps what it measured.
BENCH_RESULTS = BUILD / "bench.json"


def allowed_disagreements(precision: str, images: int) -> int:
    """Tell how many images a network that computes in a precision may name differently."""
    if precision == FLOAT:
        return ALLOWED_DISAGREEMENTS
    allowed = ALLOWED_IN_INT8 if precision == INT8 else ALLOWED_IN_HALF
    return max(1, allowed * images // 10_000)
