"""Bundles for several threads, on this machine and on an emulated board."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.network import choose_schedules, write_bundle
from shuffledeploy.compiler.targets import find_target
from shuffledeploy.deploy.devices.opening import open_device
from shuffledeploy.deploy.devices.tvm_rpc_edges import USE_THREADS
from shuffledeploy.deploy.runtime.execution import start_network
from shuffledeploy.deploy.runtime.latency import count_library, measure_interleaved
from shuffledeploy.deploy.runtime.parity import check_parity


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a pool is made of last no longer than a test."""
    monkeypatch.setenv("TVM_NUM_THREADS", "1")
    monkeypatch.setenv("TVM_BIND_THREADS", "0")


def compiled_for_two(name: str, folder: Path) -> Bundle:
    """Compile the network for two threads of a target."""
    target, network = find_target(name).on_threads(2), tiny.lowered(name)
    return write_bundle(
        folder / name, network, choose_schedules(network, target, {}), target, network="tiny",
        normalisation=None, options={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def for_two(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Compile the network for two threads of this machine."""
    return compiled_for_two("host", tmp_path_factory.mktemp("threads"))


def test_a_network_for_two_threads_is_right_and_timed_beside_one(for_two: Bundle) -> None:
    allowed = os.sched_getaffinity(0)

    def run() -> tuple[int, ...]:
        with open_device("local") as device:
            networks = [start_network(b, device) for b in (for_two, tiny.tiny_bundle())]
            assert check_parity(networks[0], for_two).passed
            inputs = for_two.reference_inputs()[0]
            for ours, theirs in zip(*(network.run(inputs) for network in networks), strict=True):
                np.testing.assert_array_equal(ours, theirs)
            return tuple(time.threads for time in measure_interleaved(networks, runs=4))

    # TVM has a pool for each thread that asks: a new thread has a new one.
    with ThreadPoolExecutor(1) as caller:
        assert caller.submit(run).result() == (2, 1)
    assert os.sched_getaffinity(0) == allowed


def test_a_pool_of_one_thread_computes_all_parts(for_two: Bundle) -> None:
    def run() -> None:
        with open_device("local") as device:
            # As of a program that ran a network for one thread first.
            device.session.get_function("runtime.config_threadpool")(1, 1)
            network = start_network(for_two, device)
            assert check_parity(network, for_two).passed
            (time,) = measure_interleaved([network], runs=4)
            assert time.threads == 1

    with ThreadPoolExecutor(1) as caller:
        caller.submit(run).result()


def test_an_emulated_board_computes_with_two_and_counts_with_one(
    board_built: None, tmp_path: Path
) -> None:
    bundle = compiled_for_two("cortex-a72", tmp_path)
    with open_device("emulated:cortex-a72") as device:
        one = start_network(tiny.tiny_bundle("cortex-a72"), device)
        expected = one.run(bundle.reference_inputs()[0])
        alone = count_library(one).total
    with open_device("emulated:cortex-a72") as device:
        network = start_network(bundle, device)
        assert device.session.get_function("runtime.NumThreads")() == 2
        assert check_parity(network, bundle).passed
        for ours, theirs in zip(network.run(bundle.reference_inputs()[0]), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        counts = {count_library(network).total for _ in range(2)}
    (shared,) = counts
    # Both parts, but the arguments of kernels are checked once.
    assert 0.75 * alone < shared


def test_a_server_refuses_threads_that_cannot_be(board_built: None) -> None:
    with open_device("emulated:cortex-a72") as device:
        use_threads = device.session.get_function(USE_THREADS)
        for wrong in (0, 65, "two"):
            with pytest.raises(RuntimeError, match="takes a number from 1 to 64"):
                use_threads(wrong)
