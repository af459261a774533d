"""The estimate of cycles: runs from blocks, loops folded, costs by llvm-mca, scores."""

from __future__ import annotations

from pathlib import Path

import pytest

from shuffledeploy.compiler.cores import CORES, describe_scheduling, scheduling_of
from shuffledeploy.compiler.native_tools import compile_c
from shuffledeploy.compiler.targets import find_target
from shuffledeploy.compiler.tuning.score import DetailedScore, KernelObject
from shuffledeploy.deploy.board.guests import guest_like_host, guest_of
from shuffledeploy.deploy.board.qemu import Emulator
from shuffledeploy.deploy.estimate import cycles, mca_costs
from shuffledeploy.deploy.estimate.block_costs import BlockCost, BlockCosts, ModelledCore
from shuffledeploy.deploy.estimate.cycles import (
    BlockRun,
    Region,
    fold_loops,
    regions_of,
    straight_runs,
    sum_cycles,
)
from shuffledeploy.deploy.estimate.executed_blocks import Block, read_blocks
from shuffledeploy.deploy.estimate.llvm_tools import GOOD_RELEASE, LlvmTools
from shuffledeploy.deploy.scoring import tuning_devices
from shuffledeploy.deploy.scoring.count_kernels import KernelCount, count_kernels
from shuffledeploy.deploy.scoring.scores import CountedInstructions, EstimatedCycles
from shuffledeploy.model.errors import Failure, UsageError

A72 = find_target("cortex-a72")


def mca_costs_of(tools: LlvmTools, architecture: str, core: str, workers: int = 1) -> BlockCosts:
    return BlockCosts(ModelledCore(tools, architecture, core), mca_costs.cost_by_mca, workers)


@pytest.mark.smoke
def test_overlapping_blocks_become_runs() -> None:
    # A loop of 12 bytes entered at its top once and in its middle 9 times, and what follows it.
    blocks = [Block(100, 12, 3, 1), Block(104, 8, 2, 9), Block(112, 8, 2, 1), Block(200, 4, 1, 1)]
    assert straight_runs(blocks) == [
        BlockRun(100, 4, 1), BlockRun(104, 8, 10), BlockRun(112, 8, 1), BlockRun(200, 4, 1),
    ]  # fmt: skip
    # One that was cut off, at a page or by its length, is joined again.
    assert straight_runs([Block(0, 400, 100, 7), Block(400, 8, 2, 7)]) == [BlockRun(0, 408, 7)]


@pytest.mark.smoke
def test_an_instruction_across_two_pages_is_counted_once() -> None:
    # As QEMU 7.2 tells it: with the block before, and as a block of its own.
    told = "fa0 94 93 2\nffc 10 1 2\n1006 3 2 2\nend\n"
    blocks = read_blocks(told)
    assert blocks == (Block(0xFA0, 92, 92, 2), Block(0xFFC, 10, 1, 2), Block(0x1006, 3, 2, 2))
    assert straight_runs(blocks) == [BlockRun(0xFA0, 105, 2)]
    # Of one that ends with its page, nothing is told twice, wherever another begins in it.
    told = "fa0 96 24 2\nff0 16 4 1\nend\n"
    assert read_blocks(told) == (Block(0xFA0, 96, 24, 2), Block(0xFF0, 16, 4, 1))


@pytest.mark.emulated
def test_a_jump_across_two_pages_is_understood(tools: LlvmTools, tmp_path: Path) -> None:
    if guest_like_host().architecture != "x86_64":
        pytest.skip("no instruction of AArch64 lies across pages")
    # 4094 bytes of nop, a jump of five over more, then two instructions.
    body = r".skip 4094, 0x90\n.byte 0xe9\n.long 1f-.-4\n.skip 300\n1: xor %eax, %eax\nret"
    kernel = _kernel(tmp_path, body, "x86_64")
    (count,) = count_kernels([kernel], guest_like_host(), warm=False)
    assert isinstance(count, KernelCount), count
    assert count.instructions == 4094 + 3
    codes = {region.code for region in regions_of(count.blocks, count.image)}
    costs = mca_costs_of(tools, "x86_64", "cascadelake").of(codes)
    assert all(isinstance(cost, BlockCost) for cost in costs.values()), costs


@pytest.mark.smoke
def test_short_loops_are_written_out_and_long_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nest = [(b"a", 1), (b"b", 10), (b"c", 40), (b"d", 10), (b"e", 1)]
    monkeypatch.setattr(cycles, "LONGEST_REGION", 100)
    assert fold_loops(nest) == [Region(b"a" + b"bccccd" * 10 + b"e", 1)]
    monkeypatch.setattr(cycles, "LONGEST_REGION", 10)
    assert fold_loops(nest) == [Region(b"bccccd", 10), Region(b"ae", 1)]
    monkeypatch.setattr(cycles, "LONGEST_REGION", 3)
    assert fold_loops(nest) == [Region(b"c", 40), Region(b"bd", 10), Region(b"ae", 1)]
    # A branch that is taken now and then is no loop.
    assert fold_loops([(b"a", 3), (b"b", 10), (b"c", 3)]) == [Region(b"b", 10), Region(b"ac", 3)]
    for limit in (1, 2, 4, 8):
        monkeypatch.setattr(cycles, "LONGEST_REGION", limit)
        total = sum(len(r.code) * r.executions for r in fold_loops(nest))
        assert total == sum(len(code) * executions for code, executions in nest)


@pytest.mark.smoke
def test_the_sum_is_executions_times_costs() -> None:
    costs: dict[bytes, BlockCost | str] = {
        b"a": BlockCost(2.0, 1.0), b"b": BlockCost(0.5, 0.5, ("odd",)), b"c": "no such thing",
    }  # fmt: skip
    found = sum_cycles([Region(b"a", 10), Region(b"b", 4)], costs)
    assert found == cycles.CycleEstimate(22.0, 12.0, ("odd",))
    assert found.cycles == 17.0
    assert sum_cycles([Region(b"c", 1)], costs) == "no such thing"


# AArch64: fmla v0.4s, v1.4s, v2.4s; add x0, x0, #1; sdiv x0, x0, x1; nop; undefined.
FMLA, ADD, SDIV = (bytes.fromhex(t) for t in ("20cc224e", "00040091", "000cc19a"))
NOP, UNDEFINED = bytes.fromhex("1f2003d5"), b"\x00\x00\x00\x00"


def test_costs_know_latency_and_throughput(tools: LlvmTools) -> None:
    costs = mca_costs_of(tools, "aarch64", "cortex-a72").of([FMLA, ADD * 8, FMLA * 2000])
    chain = costs[FMLA]
    assert isinstance(chain, BlockCost)
    # Each waits for the one before: its latency; two units could take one a cycle.
    assert chain.iterations > 2
    assert chain.throughput <= 1
    assert chain.outlying == ()
    long = costs[FMLA * 2000]
    assert isinstance(long, BlockCost)
    assert long.iterations == pytest.approx(2000 * chain.iterations, rel=0.05)


def test_what_one_llvm_mca_reads_again_costs_the_same(
    tools: LlvmTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes = [FMLA * 7 + ADD * 3, SDIV + NOP * 30 + FMLA, (ADD + SDIV) * 40]
    at_once = mca_costs_of(tools, "aarch64", "cortex-a72").of(codes)
    monkeypatch.setattr(mca_costs, "_READ_AGAIN", 0)
    assert mca_costs_of(tools, "aarch64", "cortex-a72").of(codes) == at_once


def test_an_outlying_cost_is_named(tools: LlvmTools) -> None:
    (sqrt,) = mca_costs_of(tools, "aarch64", "cortex-a72").of([bytes.fromhex("20f8a16e")]).values()
    assert isinstance(sqrt, BlockCost)
    assert sqrt.outlying == ("fsqrt",)


def test_a_repeated_string_instruction_is_not_charged_by_the_byte(tools: LlvmTools) -> None:
    stosb, stosq = bytes.fromhex("f3aa"), bytes.fromhex("f348ab")
    costs = mca_costs_of(tools, "x86_64", "cascadelake").of([stosb, stosq])
    assert costs[stosb] == BlockCost(1 / 32, 1 / 32)
    assert costs[stosq] == BlockCost(8 / 32, 8 / 32)


def test_atomic_additions_are_costed_as_the_pair_of_older_cores(tools: LlvmTools) -> None:
    # ldaddal w1, w0, [x2]; swpal x1, xzr, [x2]; the pair ldaxr w0, [x2] and stlxr w16, w0, [x2].
    addition, exchange = bytes.fromhex("4000e1b8"), bytes.fromhex("5f80e1f8")
    pair = bytes.fromhex("40fc5f88") + bytes.fromhex("40fc1088")
    costs = mca_costs_of(tools, "aarch64", "cortex-a76").of([addition, exchange, pair])
    assert costs[addition] == costs[pair]
    assert all(isinstance(cost, BlockCost) for cost in costs.values()), costs


def test_one_bad_block_spoils_no_other_and_nothing_is_costed_twice(
    tools: LlvmTools, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = mca_costs_of(tools, "aarch64", "cortex-a72", workers=2)
    first = costs.of([ADD, UNDEFINED[:3], NOP])
    assert isinstance(first[ADD], BlockCost)
    assert isinstance(first[UNDEFINED[:3]], str)
    monkeypatch.setattr(LlvmTools, "run", lambda *_: pytest.fail("costed again"))
    assert costs.of([ADD, NOP]) == {ADD: first[ADD], NOP: first[NOP]}


def test_the_table_of_shared_models_is_what_llvm_mca_says(tools: LlvmTools) -> None:
    if tools.release < GOOD_RELEASE:
        pytest.skip(f"llvm-mca {tools.version} shares more models")
    sample = "fmla v0.4s,v1.4s,v2.s[0]\nldp q1,q2,[x0]\nstr q0,[x1]\nldr q4,[x3],#16\n"
    by_llvm = [core for core in CORES.values() if not core.scheduling.in_order]
    made_for = {core.scheduling.made_for for core in by_llvm}
    answers = {
        core: tools.run(tools.mca, ["-mtriple=aarch64", f"-mcpu={core}"], sample)
        for core in {*made_for, *(core.name for core in by_llvm)}
    }
    assert len({answers[core] for core in made_for}) == len(made_for) == 2
    # LLVM 19 gives the A76 and its kin the A57's model; these cores are much alike the N1.
    kin = {"cortex-a76", "cortex-a77", "cortex-a78"}
    for core in by_llvm:
        alike = answers[core.name] == answers[core.scheduling.made_for]
        assert alike or core.name in kin, core.name
    assert "made for the cortex-a57" in describe_scheduling("cortex-a72")
    assert "its own" in describe_scheduling("cortex-a53")
    assert scheduling_of("apple-m1") is None


def test_a_core_that_decodes_fewer_instructions_takes_longer(tools: LlvmTools) -> None:
    # Three that depend on nothing: one cycle of a core that starts three, one and a half of two.
    code = bytes.fromhex("1f2003d5") * 6
    cost = {}
    for name in ("cortex-a57", "cortex-a73"):
        (found,) = mca_costs.cost_by_mca(ModelledCore(tools, "aarch64", name), [code])
        cost[name] = found.iterations
    assert cost["cortex-a57"] == pytest.approx(2, abs=0.1)
    assert cost["cortex-a73"] == pytest.approx(3, abs=0.1)
    assert "decoding 2" in describe_scheduling("cortex-a73")


def _kernel(folder: Path, body: str, architecture: str = "aarch64") -> KernelObject:
    source = folder / "kernel.c"
    source.write_text(
        f'__attribute__((naked)) int __tvm_ffi_main(void) {{ __asm__ volatile("{body}"); }}'
    )
    flags = ("-c", "-target", f"{architecture}-linux-musl", "-ffreestanding", "-fno-builtin")
    compile_c(source, source.with_suffix(".o"), flags)
    return KernelObject(source.with_suffix(".o"), "__tvm_ffi_main", (((4,), "float32"),))


@pytest.mark.emulated
def test_a_kernel_is_estimated_with_both_forms_kept(
    emulator: Emulator, tools: LlvmTools, tmp_path: Path
) -> None:
    score = EstimatedCycles(guest_of("cortex-a72"), "cortex-a72", 1)
    chain = r"fmadd s0, s1, s2, s0\n" * 8
    body = rf"mov x9, #5000\n 1: {chain} subs x9, x9, #1\n b.ne 1b\n mov w0, #0\n ret"
    (found,) = score([_kernel(tmp_path, body)])
    assert isinstance(found, DetailedScore), found
    assert found.details["instructions"] == 3 + 5000 * 10
    # Eight that wait for each other: twenty cycles at the least; in throughput alone, a quarter.
    assert found.details["iterations"] > 5000 * 20
    assert found.details["throughput"] < found.details["iterations"] / 1.5
    assert found.details["disagree"] == 1
    core = (found.details["iterations"] + found.details["throughput"]) / 2
    waited = sum(found.details[p] for p in ("first_level", "third_level", "stalls", "memory"))
    assert found.details["code"] == pytest.approx(core, abs=0.1)
    assert found == pytest.approx(core + waited, abs=0.5)
    assert score([_kernel(tmp_path, body)]) == [found]
    (failed,) = score([_kernel(tmp_path, r"mov x9, #0\n ldr x9, [x9]\n ret")])
    assert "SIGSEGV" in str(failed)
    for part in (
        "cortex-a72",
        f"estimator {cycles.ESTIMATOR_VERSION}",
        "CortexA57Model",
        "llvm-mca",
    ):
        assert part in score.source or tools.release < GOOD_RELEASE


def test_a_register_that_is_cleared_waits_for_nothing(tools: LlvmTools) -> None:
    # vxorps xmm0, xmm0, xmm0 and three of vfmadd231ps ymm0, ymm2, ymm1; xor eax, eax and two of
    # imul rax, rax: a sum begins anew in each round, on every core.
    codes = [
        bytes.fromhex("c5f857c0" + "c4e26db8c1" * 3), bytes.fromhex("31c0" + "480fafc0" * 2)
    ]  # fmt: skip
    for code, waiting in zip(codes, (12, 6), strict=True):
        for core in ("cascadelake", "emeraldrapids", "alderlake", "znver3"):
            (cost,) = mca_costs_of(tools, "x86_64", core).of([code]).values()
            assert isinstance(cost, BlockCost), cost
            assert cost.iterations < waiting / 2, core


@pytest.mark.emulated
def test_a_repeated_call_finds_the_caches_as_a_call_leaves_them(
    emulator: Emulator, tools: LlvmTools, tmp_path: Path
) -> None:
    # Reads 2 MiB, twice an A72's second level, from the end to the start: what was written last
    # comes first, and is there in a first call only; then lines that a call has changed are none.
    lines = 2 * 1024 * 1024 // 64
    body = (
        rf"ldr x9, [x1, #8]\n ldr x9, [x9]\n mov x10, #{lines}\n add x9, x9, x10, lsl #6\n"
        r" 1: ldr x11, [x9, #-64]!\n subs x10, x10, #1\n b.ne 1b\n mov w0, #0\n ret"
    )
    kernel = _kernel(tmp_path, body)
    kernel = KernelObject(kernel.path, kernel.symbol, (((lines * 16,), "float32"),))
    found = [
        EstimatedCycles(guest_of("cortex-a72"), "cortex-a72", 1, repeated=repeated)([kernel])[0]
        for repeated in (False, True)
    ]
    first, again = (score.details for score in found if isinstance(score, DetailedScore))
    assert first["instructions"] == again["instructions"]
    assert first["l2_misses"] < 0.6 * lines < lines <= again["l2_misses"]
    assert again["dirty_lines"] < 0.01 * lines < first["dirty_lines"]


@pytest.mark.emulated
def test_what_scores_an_emulated_core(
    emulator: Emulator,
    tools: LlvmTools,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def kind(name: str | None, device: str = "emulated") -> type:
        with tuning_devices.score(A72, device, name) as score:
            return type(score)

    assert kind(None) is kind("estimate") is EstimatedCycles
    assert kind("instructions") is CountedInstructions
    with pytest.raises(UsageError, match="says nothing of the core"):
        kind("latency")
    if find_target("host").architecture != "aarch64":
        with (
            pytest.raises(UsageError, match="no emulated core for"),
            tuning_devices.score(find_target("host"), "local", "estimate"),
        ):
            pass

    def missing() -> LlvmTools:
        raise Failure("there is no llvm-mca")

    monkeypatch.setattr("shuffledeploy.deploy.estimate.cycle_model.ensure_llvm_tools", missing)
    assert kind(None) is CountedInstructions
    assert "warning: no estimate of cycles: there is no llvm-mca" in " ".join(
        capsys.readouterr().err.split()
    )
    with pytest.raises(Failure, match="no llvm-mca"):
        kind("estimate")
    monkeypatch.setattr(tuning_devices, "scheduling_of", lambda _: None)
    assert kind(None) is CountedInstructions
    assert "LLVM has no scheduling model" in capsys.readouterr().err


@pytest.mark.emulated
def test_sources_tell_counts_from_estimates(emulator: Emulator, tools: LlvmTools) -> None:
    counted = CountedInstructions("cortex-a72", 1)
    # What the committed log says: it goes on being used.
    assert counted.source == "counted: instructions executed by cortex-a72 code, emulated"
    sources = {
        EstimatedCycles(guest_of(core), core, 1).source for core in ("cortex-a53", "cortex-a72")
    }
    assert len(sources | {counted.source}) == 3


def test_a_guest_like_this_machine_runs_here() -> None:
    assert guest_like_host().model == "max"
