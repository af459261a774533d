"""Bundles for several threads on this machine."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tiny

from shuffledeploy.compiler.bundle.folder import Bundle
from shuffledeploy.compiler.network import choose_schedules, write_bundle
from shuffledeploy.compiler.targets import find_target
from shuffledeploy.deploy.devices.opening import open_device
from shuffledeploy.deploy.runtime.execution import start_network
from shuffledeploy.deploy.runtime.latency import measure_interleaved
from shuffledeploy.deploy.runtime.parity import check_parity


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a pool is made of last no longer than a test."""
    monkeypatch.setenv("TVM_NUM_THREADS", "1")
    monkeypatch.setenv("TVM_BIND_THREADS", "0")


@pytest.fixture(scope="module")
def for_two(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Compile the network for two threads."""
    target, network = find_target("host").on_threads(2), tiny.lowered("host")
    return write_bundle(
        tmp_path_factory.mktemp("threads") / "tiny", network,
        choose_schedules(network, target, {}), target, network="tiny", normalisation=None,
        options={},
    )  # fmt: skip


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
