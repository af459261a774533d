"""Costs that outlive a run: found again, shared, and never worse than none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from shuffledeploy.deploy.estimate import remembered_costs
from shuffledeploy.deploy.estimate.block_costs import BlockCost, BlockCosts, ModelledCore
from shuffledeploy.deploy.estimate.llvm_tools import LlvmTools
from shuffledeploy.deploy.estimate.remembered_costs import RememberedCosts
from shuffledeploy.model.errors import Failure

pytestmark = pytest.mark.smoke
COST, OTHER = BlockCost(3.5, 2.0, ("fdiv",)), BlockCost(1.0, 1.0)


def test_two_tuners_at_once_lose_nothing(tmp_path: Path) -> None:
    one, two = RememberedCosts("a72, 2", tmp_path), RememberedCosts("a72, 2", tmp_path)
    one.add({b"first": COST})
    two.add({b"second": OTHER})
    one.save()
    two.save()
    later = RememberedCosts("a72, 2", tmp_path)
    assert (later.find(b"first"), later.find(b"second")) == (COST, OTHER)
    assert later.find(b"third") is None
    # Written beside and renamed: nothing else is left.
    assert [file.name for file in tmp_path.iterdir()] == [later.path.name]


def test_costs_of_another_estimator_are_not_taken(tmp_path: Path) -> None:
    one = RememberedCosts("a72, 2", tmp_path)
    one.add({b"first": COST})
    one.save()
    assert RememberedCosts("a72, 3", tmp_path).find(b"first") is None
    # Nor where two names should ever share a file.
    document = json.loads(one.path.read_text())
    one.path.write_text(json.dumps(document | {"of": "a53, 2"}))
    assert RememberedCosts("a72, 2", tmp_path).find(b"first") is None


@pytest.mark.parametrize("text", ["", "[]", '{"of": "a72, 2", "costs": {"x": [1]}}', '{"of": '])
def test_a_spoiled_file_counts_as_empty_and_is_replaced(tmp_path: Path, text: str) -> None:
    path = RememberedCosts("a72, 2", tmp_path).path
    path.write_text(text)
    one = RememberedCosts("a72, 2", tmp_path)
    assert one.find(b"first") is None
    one.add({b"first": COST})
    one.save()
    assert RememberedCosts("a72, 2", tmp_path).find(b"first") == COST


def test_a_folder_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    one = RememberedCosts("a72, 2", in_the_way)
    one.add({b"first": COST})
    one.save()
    assert one.find(b"first") == COST


def test_the_file_does_not_grow_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered_costs, "MOST_REMEMBERED", 2)
    for codes in ([b"a", b"b"], [b"c"]):
        one = RememberedCosts("a72, 2", tmp_path)
        one.add(dict.fromkeys(codes, COST))
        one.save()
    later = RememberedCosts("a72, 2", tmp_path)
    assert later.find(b"c") == COST
    assert later.find(b"a") is None


def test_what_is_remembered_is_not_costed_again(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def cost(_: ModelledCore, codes: Sequence[bytes]) -> list[BlockCost]:
        asked.extend(codes)
        if b"bad" in codes:
            raise Failure("a bad moment")
        return [COST] * len(codes)

    core = ModelledCore(LlvmTools(Path(), Path(), "", ""), "aarch64", "cortex-a72")
    for _ in range(2):
        remembered = RememberedCosts("a72, 2", tmp_path)
        costs = BlockCosts(core, cost, 1, remembered)
        assert costs.of([b"good", b"bad"]) == {b"good": COST, b"bad": "a bad moment"}
        remembered.save()
    # A refusal may have been the tool's bad moment: it is asked again.
    assert asked.count(b"bad") == 3
    assert asked.count(b"good") == 2
