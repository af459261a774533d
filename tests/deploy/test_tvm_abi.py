"""Bundles run by the runtime's C ABI: PyTorch's answers, errors in words, nothing imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny import SIDE, tiny_bundle

from shuffledeploy.deploy.benchmark import tvm_abi
from shuffledeploy.deploy.benchmark.our_engine import OurNetwork

PROJECT = Path(__file__).resolve().parents[2]
IMAGE = np.ones((1, 3, SIDE, SIDE), np.float32)


@pytest.fixture(scope="module")
def network() -> OurNetwork:
    return OurNetwork(str(tiny_bundle().library))


@pytest.mark.smoke
def test_answers_are_those_of_pytorch(network: OurNetwork) -> None:
    bundle = tiny_bundle()
    cases = zip(bundle.reference_inputs(), bundle.reference_outputs(), strict=True)
    for (image,), (expected,) in cases:
        network.set_input(image)
        network.run()
        answer = network.output()
        assert (answer.shape, answer.dtype) == (expected.shape, expected.dtype)
        assert np.abs(answer - expected).max() <= bundle.manifest.tolerance


def test_an_image_is_read_where_it_lies(network: OurNetwork) -> None:
    image = IMAGE.copy()
    network.set_input(image)
    network.run()
    before = network.output()
    image += 1
    network.run()
    assert np.abs(network.output() - before).max() > 0


def test_what_goes_wrong_is_told_in_words(network: OurNetwork, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"cannot open shared object"):
        tvm_abi.load_module(str(tmp_path / "nothing.so"))
    with pytest.raises(RuntimeError, match="no function 'nothing'"):
        network.machine["nothing"]
    with pytest.raises(RuntimeError, match="ndim 4 but get 2"):
        network.set_input(IMAGE[0, 0])
        network.run()
    with pytest.raises(RuntimeError, match="float64"):
        network.set_input(IMAGE.astype(np.float64))
        network.run()
    with pytest.raises(TypeError, match="64 bits is not float32"):
        tvm_abi.tensor(IMAGE.astype(np.float64)).array()


def test_an_instrument_sees_names_and_shapes(network: OurNetwork) -> None:
    seen: list[tuple[str, list[object]]] = []

    def note(_: object, name: str, before: int, __: object, *arguments: object) -> None:
        if before:
            seen.append((name, [one for one in arguments if isinstance(one, tuple)]))

    network.set_input(IMAGE)
    network.machine["set_instrument"](tvm_abi.function(note))
    network.run()
    network.machine["set_instrument"](None)
    kernels = tiny_bundle().manifest.kernel_order
    calls = [(name, shapes) for name, shapes in seen if name in kernels]
    assert tuple(name for name, _ in calls) == kernels
    assert calls[0][1][0] == IMAGE.shape


ALONE = """
import sys
from shuffledeploy.deploy.benchmark.our_engine import load
load({"library": sys.argv[1]}, 1).run
print(sorted({"tvm", "tvm_ffi", "torch", "ml_dtypes"} & set(sys.modules)))
"""


def test_nothing_of_tvm_is_imported() -> None:
    told = subprocess.run(
        [sys.executable, "-c", ALONE, str(tiny_bundle().library)],
        capture_output=True, text=True, check=True, cwd=PROJECT,
    )  # fmt: skip
    assert told.stdout.strip() == "[]"
