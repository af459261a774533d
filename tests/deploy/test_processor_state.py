"""What a device tells of its core around a measurement, and how that is said."""

from __future__ import annotations

import os
from typing import Any, cast

import pytest
from tiny import tiny_bundle
from tvm import rpc

from shuffledeploy.deploy.devices.opening import open_device
from shuffledeploy.deploy.devices.processor_state import (
    ProcessorState,
    read_processor,
    summarize,
)
from shuffledeploy.deploy.phone.emulated_phone.phone_process import PhoneProcess
from shuffledeploy.deploy.presentation.run_report import figure_json, figure_row
from shuffledeploy.deploy.runtime.execution import start_network
from shuffledeploy.deploy.runtime.latency import Latency, measure_latency
from shuffledeploy.model.errors import Failure


class _Session:
    """A session with a device that tells a text of its processor."""

    def __init__(self, told: str | None) -> None:
        self._told = told

    def get_function(self, name: str) -> Any:
        if self._told is None:
            raise AttributeError(name)
        return lambda: self._told


def _session(told: str | None) -> rpc.RPCSession:
    return cast(rpc.RPCSession, _Session(told))


def _state(khz: int | None, millidegrees: int | None = 40_000, core: int = 7) -> ProcessorState:
    return ProcessorState(core, khz, 2_840_000, millidegrees)


def test_throttling_is_said_in_the_figure() -> None:
    readings = summarize([_state(2_840_000), *[_state(2_500_000)] * 4, _state(2_500_000, 71_500)])
    assert readings
    assert (readings.celsius_before, readings.celsius_after) == (40.0, 71.5)
    figure = Latency(1.0, 0.9, 1.1, 200, 1, "cortex-a76", "Phone 8", readings)
    _, said = figure_row(figure)
    assert "measured on Phone 8 (cortex-a76), core 7, 2.50 GHz, throttled by 12 %" in said
    written = figure_json(figure)["latency"]
    assert written["processor"]["throttled"] == pytest.approx(0.12)
    assert written["processor"]["clock_ghz"] == 2.5


def test_a_core_at_its_highest_clock_is_not_throttled() -> None:
    readings = summarize([_state(2_830_000)] * 3)
    assert readings
    assert readings.throttled == 0
    assert str(readings) == "core 7, 2.83 GHz"


def test_what_is_not_told_is_not_said() -> None:
    assert summarize([]) is None
    readings = summarize([_state(None, None, core=1), _state(None, None, core=2)])
    assert readings
    assert str(readings) == ""
    assert readings.throttled is None
    assert readings.celsius_after is None
    assert read_processor(_session(None)) is None


@pytest.mark.parametrize(
    "told",
    [
        "",
        "{}",
        "[" * 100_000,
        '{"core": "7", "present_khz": 1, "highest_khz": 1, "millidegrees": 1}',
        '{"core": -7, "present_khz": 1, "highest_khz": 1, "millidegrees": 1}',
        '{"core": 7, "present_khz": 1e300, "highest_khz": 1, "millidegrees": 1}',
        '{"core": 7, "present_khz": 1, "highest_khz": 1, "millidegrees": 1, "more": 1}',
    ],
)
def test_odd_processors_are_refused(told: str) -> None:
    with pytest.raises(Failure, match="of its processor cannot be"):
        read_processor(_session(told))


@pytest.mark.emulated
def test_a_phone_tells_its_core_its_clock_and_its_temperature(phone: PhoneProcess) -> None:
    """The emulated phone has slow cores, then fast ones of 2.84 GHz, and 35 degrees."""
    with open_device(phone.name) as device:
        state = read_processor(device.session)
        assert state and state.core is not None
        assert state.core == device.information.pinned_core
        # The fastest that this process may use, which may be a slow one.
        is_fast = 2 * state.core >= (os.cpu_count() or 1) - 1
        assert state.present_khz == state.highest_khz == (2_840_000 if is_fast else 1_800_000)
        assert state.millidegrees == 35_000


def test_this_machine_tells_nothing_and_is_timed_all_the_same() -> None:
    with open_device("local") as device:
        figure = measure_latency(start_network(tiny_bundle(), device), runs=5)
    assert figure.processor is None
    assert figure.place == figure.core
