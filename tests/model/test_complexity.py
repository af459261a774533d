"""Multiply-adds of the traced programs, against the papers' figures and formulas."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from shuffledeploy.model.complexity import Complexity, complexity, trace_shapes
from shuffledeploy.model.complexity_report import PAPER, network_complexity
from shuffledeploy.model.complexity_table import main
from shuffledeploy.model.mobilenet import convolution, scaled_resolution
from shuffledeploy.model.resnext import ResNeXtUnit
from shuffledeploy.model.shufflenet import ShuffleUnit

count = functools.lru_cache(maxsize=None)(network_complexity)

#: Multiply-adds of the convolutions, and with the classifier, at 224x224.
EXACT = {
    "shufflenet-g1-x1": (142_502_976, 143_078_976),
    "shufflenet-g2-x1": (140_036_512, 140_836_512),
    "shufflenet-g3-x1": (136_500_672, 137_460_672),
    "shufflenet-g4-x1": (133_251_776, 134_339_776),
    "shufflenet-g8-x1": (136_829_952, 138_365_952),
}


@pytest.mark.parametrize("name", EXACT)
def test_multiply_adds_of_table_1(name: str) -> None:
    counted = count(name)
    assert (counted.convolution_multiply_adds, counted.multiply_adds) == EXACT[name]
    millions, source = PAPER[name]
    assert source == "Table 1"
    assert abs(counted.convolution_multiply_adds / 1e6 - millions) <= 0.5


@pytest.mark.parametrize(
    ("name", "multiply_adds"),
    [("shufflenet-g3-x0.5", 37_589_856), ("shufflenet-g3-x1.5", None), ("shufflenet-g3-x2", None)],
)
def test_scaled_networks_round_to_the_papers_figures(name: str, multiply_adds: int | None) -> None:
    counted = count(name).multiply_adds
    assert round(counted / 1e6) == PAPER[name][0]
    assert multiply_adds in (None, counted)


@pytest.mark.parametrize(
    ("name", "side", "millions"),
    [
        # Tables 6 and 7 of the MobileNet paper: the width, then the resolution multiplier.
        ("mobilenet-x1.0", 224, 569),
        ("mobilenet-x0.75", 224, 325),
        ("mobilenet-x0.5", 224, 149),
        ("mobilenet-x0.25", 224, 41),
        ("mobilenet-x1.0", 192, 418),
    ],
)
def test_mobilenet(name: str, side: int, millions: int) -> None:
    assert round(count(name, (side, side)).multiply_adds / 1e6) == millions


def test_alexnet_has_the_groups_of_2012() -> None:
    counted = count("alexnet")
    assert counted.multiply_adds == 724_406_816
    assert counted.parameters == 60_965_224
    assert [layer.kind for layer in counted.layers].count("grouped") == 3


def test_alexnet_classifier_costs_the_same_at_any_resolution() -> None:
    small, large = count("alexnet"), count("alexnet", (480, 640))
    assert large.by_kind()["linear"] == small.by_kind()["linear"] == 58_621_952
    assert large.multiply_adds > 5 * small.multiply_adds


@pytest.mark.parametrize("rho", [1, 6 / 7, 5 / 7, 4 / 7])
def test_resolution_multiplier(rho: float) -> None:
    assert scaled_resolution(rho) == {1: 224, 6 / 7: 192, 5 / 7: 160, 4 / 7: 128}[rho]


def counted_unit(unit: nn.Module, *shape: int) -> Complexity:
    return complexity(trace_shapes(unit.eval(), shape))


@pytest.mark.parametrize("groups", [1, 3, 8])
def test_shuffle_unit_costs_what_section_3_2_says(groups: int) -> None:
    height, width, channels, bottleneck = 14, 28, 480, 120
    unit = ShuffleUnit(channels, channels, groups, stride=1, group_first=True)
    cost = counted_unit(unit, 1, channels, height, width).multiply_adds
    assert cost == height * width * (2 * channels * bottleneck // groups + 9 * bottleneck)


@pytest.mark.parametrize("groups", [1, 4, 32])
def test_residual_unit_costs_what_section_3_2_says(groups: int) -> None:
    """Cardinality 1 is ResNet's unit."""
    height, width, channels, bottleneck = 7, 9, 256, 64
    unit = ResNeXtUnit(channels, bottleneck, channels, groups, stride=1)
    cost = counted_unit(unit, 1, channels, height, width).multiply_adds
    assert cost == height * width * (2 * channels * bottleneck + 9 * bottleneck**2 // groups)


def test_depthwise_separable_costs_one_over_n_and_one_over_nine() -> None:
    channels, out_channels, shape = 32, 64, (1, 32, 10, 10)
    separable = nn.Sequential(
        convolution(channels, channels, 3, groups=channels), convolution(channels, out_channels, 1)
    )
    standard = convolution(channels, out_channels, 3)
    ratio = (
        counted_unit(separable, *shape).multiply_adds / counted_unit(standard, *shape).multiply_adds
    )
    assert ratio == pytest.approx(1 / out_channels + 1 / 9, rel=1e-12)


class Small(nn.Module):
    """Ties a weight, multiplies two activations, and has a batch of two."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map ``(batch, 4)`` to ``(batch, batch)``."""
        x = self.norm(self.project(self.project(x)))
        return x @ x.transpose(0, 1)


@pytest.mark.smoke
@pytest.mark.parametrize("decomposed", [False, True])
def test_counting_a_network_that_is_not_ours(decomposed: bool) -> None:
    program = trace_shapes(Small().eval(), (2, 4))
    if decomposed:  # linear becomes addmm of a transposed weight
        program = program.run_decompositions()
    counted = complexity(program)
    assert [layer.kind for layer in counted.layers][-1] == "product"
    assert counted.by_kind() == {"linear": 2 * 2 * 4 * 4, "product": 2 * 2 * 4}
    assert counted.parameters == 4 * 4 + 4 + 2 * 4
    assert counted.layers[0].name == "project"
    assert counted.convolution_multiply_adds == 0


def test_kinds_of_convolution() -> None:
    unit = ShuffleUnit(24, 60, groups=3, stride=2, group_first=False)
    kinds = [layer.kind for layer in counted_unit(unit, 1, 24, 8, 8).layers]
    assert [kind for kind in kinds if kind != "batch_norm"] == [
        "pointwise",
        "depthwise",
        "grouped pointwise",
    ]


def test_command_writes_what_it_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    file = tmp_path / "alexnet.json"
    argv = ["--model", "alexnet", "--resolution", "96x128", "--layers", "--json", str(file)]
    assert main(argv) == 0
    document = json.loads(file.read_text())
    assert document["resolution"] == "96x128"
    assert document["parameters"] == 60_965_224
    assert document["multiply_adds"] == sum(row["multiply_adds"] for row in document["layers"])
    printed = capsys.readouterr().out
    assert f"{document['multiply_adds']:,}" in printed
    assert max(map(len, printed.splitlines())) <= 80


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model", "alexnett"], "did you mean alexnet"),
        (["--model", "alexnet", "--resolution", "32x32"], "63 to 4096"),
        (["--model", "alexnet", "--resolution", "big"], "HEIGHTxWIDTH"),
        (["--layers"], "add --model"),
        (["--model", "alexnet", "--json", "/nowhere/at/all.json"], "cannot be written"),
    ],
)
def test_command_reports_mistakes_in_one_line(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
