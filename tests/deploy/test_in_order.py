"""Cores that issue in order: single instructions as measured, and which go together in a cycle.

The measured figures are those of insn_bench (github.com/ocxtal/insn_bench_aarch64), Raspberry Pi 3;
which instructions go together is told by ncnn's developer guide, "arm a53 a55 dual issue".
"""

from __future__ import annotations

import pytest

from shuffledeploy.compiler.cores import CORES
from shuffledeploy.deploy.estimate.block_costs import BlockCost, BlockCosts, ModelledCore
from shuffledeploy.deploy.estimate.cycle_model import CycleModel
from shuffledeploy.deploy.estimate.in_order.dual_issue import cycles_of
from shuffledeploy.deploy.estimate.in_order.operands import read_operation
from shuffledeploy.deploy.estimate.in_order.scoreboard_costs import cost_in_order
from shuffledeploy.deploy.estimate.llvm_tools import LlvmTools

A53, A55 = "cortex-a53", "cortex-a55"
MANY = range(8)


def lines(*texts: str) -> list[str]:
    return [text.replace(" ", "\t", 1) for text in texts]


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("text", "cycles"),
    [
        ("add x{0}, x20, #1", 0.5),
        ("lsl x{0}, x20, #2", 0.5),
        ("mul x{0}, x20, x21", 2),
        ("madd x{0}, x20, x21, x22", 3),
        ("smulh x{0}, x20, x21", 4),
        ("ldr x{0}, [x20, #8]", 1),
        ("ldp x{0}, x19, [x20]", 2),
        ("ldr q{0}, [x20, #16]", 2),
        ("ldp q{0}, q19, [x20]", 4),
        ("ld1 {{ v{0}.4s, v17.4s, v18.4s, v19.4s }}, [x20]", 8),
        ("ld1r {{ v{0}.4s }}, [x20]", 1),
        ("ld4 {{ v{0}.4s, v17.4s, v18.4s, v19.4s }}, [x20]", 8),
        ("str q{0}, [x20]", 1),
        ("stp q{0}, q19, [x20]", 2),
        ("st4 {{ v{0}.4s, v17.4s, v18.4s, v19.4s }}, [x20]", 5),
        ("add v{0}.4s, v20.4s, v21.4s", 1),
        ("zip1 v{0}.4s, v20.4s, v21.4s", 1),
        ("fadd v{0}.4s, v20.4s, v21.4s", 1),
        ("fadd v{0}.2s, v20.2s, v21.2s", 0.5),
        ("fmul s{0}, s20, s21", 0.5),
        ("fmla v{0}.4s, v20.4s, v21.s[0]", 1),
        ("fsqrt v{0}.4s, v20.4s", 9),
        ("sadalp v{0}.4s, v20.8h", 2),
    ],
)
def test_as_many_are_done_as_were_measured(text: str, cycles: float) -> None:
    run = lines(*(text.format(place) for place in MANY))
    assert cycles_of(run, A53) / len(MANY) == pytest.approx(cycles, abs=0.13)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("text", "latency"),
    [
        ("add x0, x0, #1", 1),
        ("add x0, x0, x1, lsl #2", 2),
        ("mul x0, x0, x1", 4),
        ("ldr x0, [x0]", 3),
        ("and v0.16b, v0.16b, v1.16b", 1),
        ("add v0.4s, v0.4s, v1.4s", 2),
        ("ext v0.16b, v0.16b, v1.16b, #4", 2),
        ("fadd v0.4s, v0.4s, v1.4s", 4),
        # One that is multiplied, and an accumulator, which is read late.
        ("fmla v0.4s, v0.4s, v1.4s", 8),
        ("fmla v0.4s, v1.4s, v2.4s", 4),
        ("smlal v0.4s, v1.4h, v2.4h", 1),
    ],
)
def test_what_waits_for_itself_takes_the_measured_latency(text: str, latency: int) -> None:
    assert cycles_of(lines(text) * 4, A53) / 4 == latency


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("beside", "a53", "a55"),
    [
        ("ldr q16, [x0]", 2, 2),
        ("ldr d16, [x0]", 1, 0),
        ("ldr x9, [x0]", 0, 0),
        ("add x9, x9, #16", 0, 0),
        ("mov v16.d[1], x9", 1, 1),
    ],
)
def test_what_goes_beside_an_fmla(beside: str, a53: int, a55: int) -> None:
    """Cycles that one more instruction costs among four fmla of 128 bits."""
    fmla = lines(*(f"fmla v{place}.4s, v20.4s, v21.4s" for place in range(4)))
    run = [fmla[0], *lines(beside), *fmla[1:]]
    assert cycles_of(run, A53) == 4 + a53
    assert cycles_of(run, A55) == 4 + a55


@pytest.mark.smoke
def test_a_load_and_an_insertion_of_64_bits_go_together() -> None:
    fmla = [f"fmla v{place}.4s, v20.4s, v21.4s" for place in range(4)]
    run = lines(fmla[0], "ldr d16, [x0]", "mov v17.d[1], x9", *fmla[1:])
    assert cycles_of(run, A53) == 5


@pytest.mark.smoke
def test_what_cannot_start_holds_back_what_follows() -> None:
    waiting = lines("ldr x1, [x0]", "add x2, x1, #1", "add x3, x4, #1", "add x5, x6, #1")
    assert cycles_of(waiting, A53) == 4


@pytest.mark.smoke
def test_operands_are_read_and_written_where_the_instruction_says() -> None:
    fmla = read_operation("fmla\tv0.4s, v1.4s, v2.s[3]")
    assert (fmla.reads, fmla.writes, fmla.accumulators) == (("v1", "v2"), ("v0",), ("v0",))
    load = read_operation("ld1\t{ v30.4s - v1.4s }, [x0], x2")
    assert load.writes == ("v30", "v31", "v0", "v1", "x0")
    assert (load.reads, load.address, load.words) == (("x0", "x2"), "x0", 8)
    lane = read_operation("ld1\t{ v3.s }[2], [x9]")
    assert (lane.reads, lane.writes, lane.words) == (("x9", "v3"), ("v3",), 1)
    store = read_operation("stp\tq0, q1, [sp, #-32]!")
    assert (store.reads, store.writes, store.words) == (("v0", "v1", "x31"), ("x31",), 4)
    assert read_operation("b.ne\t#-20").reads == ("nzcv",)
    assert read_operation("subs\tx1, x1, #1").writes == ("x1", "nzcv")
    assert read_operation("str\tq0, [x1]").writes == ()
    half = read_operation("fadd\tv0.2s, v1.2s, v2.2s")
    assert (half.is_vector, half.is_wide) == (True, False)


def test_code_is_costed_from_its_bytes(tools: LlvmTools) -> None:
    # fmla v0.4s, v1.4s, v2.4s; nothing that is an instruction.
    fmla, undefined = bytes.fromhex("20cc224e"), b"\x00\x00\x00"
    for name in (core.name for core in CORES.values() if core.scheduling.in_order):
        costs = BlockCosts(ModelledCore(tools, "aarch64", name), cost_in_order)
        found = costs.of([fmla * 4, undefined])
        assert found[fmla * 4] == BlockCost(16, 16)
        assert isinstance(found[undefined], str)


def test_an_estimate_tells_that_no_model_of_llvms_is_in_it(tools: LlvmTools) -> None:
    assert "measured costs of instructions, issued in order" in CycleModel("aarch64", A53).source
    assert "NeoverseN1Model" in CycleModel("aarch64", "cortex-a76").source
