"""Targets by name, by tag and as dicts; what is not supported is refused in words."""

from __future__ import annotations

import json
import pickle
import platform

import pytest
import tvm

from shuffledeploy.compiler import processor_features, targets
from shuffledeploy.compiler.cores import DEFAULT_CORE
from shuffledeploy.compiler.processor_features import cpu_features
from shuffledeploy.compiler.targets import ARM_CORES, find_target
from shuffledeploy.model.errors import UsageError

pytestmark = pytest.mark.smoke


@pytest.mark.parametrize("name", ARM_CORES)
def test_every_core_by_name(name: str) -> None:
    target = find_target(name)
    assert (target.name, target.cpu, target.architecture) == (name, name, "aarch64")
    assert target.core.lanes == 4
    assert "asimd" in target.features
    assert str(target.tvm_target.attrs["mcpu"]) == name
    # Base ARMv8.0 cores must not be given what only later ones have.
    assert ("asimddp" in target.features) == (name not in
        ("cortex-a53", "cortex-a57", "cortex-a72", "cortex-a73"))  # fmt: skip


def test_arm_is_the_default_core() -> None:
    assert find_target("arm") == find_target(DEFAULT_CORE)


def test_the_host_fits_this_machine() -> None:
    host = find_target("host")
    assert host.architecture == platform.machine()
    assert host.fits_this_machine
    assert set(host.features) <= cpu_features()
    assert host.name.startswith("host-")


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86_64 cores")
@pytest.mark.parametrize(
    ("flags", "expected", "lanes"),
    [
        ("sse2 fma avx2 f16c bmi1 bmi2 abm movbe", "host-x86-64-v3", 8),
        ("sse2", "host-x86-64", 4),
        ("sse2 fma avx2 avx512f avx512bw avx512dq avx512vl", "host-rocketlake", 16),
    ],
)
def test_what_a_hypervisor_hides_is_not_used(
    monkeypatch: pytest.MonkeyPatch, flags: str, expected: str, lanes: int
) -> None:
    """LLVM knows a Rocket Lake by its model, and takes AVX-512 for granted on it."""
    for module in (processor_features, targets):
        monkeypatch.setattr(module, "cpu_features", lambda: frozenset(flags.split()))
    monkeypatch.setattr(targets, "system_cpu", lambda: "rocketlake")
    host = find_target("host")
    assert (host.name, host.core.lanes) == (expected, lanes)
    assert find_target("arm").fits_this_machine == (platform.machine() == "aarch64")


def test_tags_of_tvm() -> None:
    target = find_target("raspberry-pi/4b-aarch64")
    assert (target.name, target.cpu) == ("raspberry-pi-4b-aarch64", "cortex-a72")
    assert target.options["num-cores"] == 1
    # Options travel to the processes that build candidates, and into reports.
    assert pickle.loads(pickle.dumps(target.options)) == json.loads(json.dumps(target.options))


def test_every_other_tag_is_taken_or_refused_in_words() -> None:
    taken = 0
    for tag in tvm.target.list_tags():
        try:
            taken += find_target(str(tag)).architecture in ("aarch64", "x86_64")
        except UsageError as error:
            assert "supported" in str(error) or "knows no" in str(error)
    assert taken > 3


def test_a_dict() -> None:
    text = json.dumps({"kind": "llvm", "mtriple": "aarch64-linux-android", "mcpu": "cortex-x1"})
    target = find_target(text)
    assert (target.architecture, target.cpu) == ("aarch64", "cortex-x1")
    assert target.name == "aarch64-cortex-x1"
    assert target.options["num-cores"] == 1
    assert find_target(text[:-1] + ', "mattr": ["+sve"]}').name == "aarch64-cortex-x1+sve"
    assert "sve" in find_target(text[:-1] + ', "mattr": ["+sve"]}').features
    assert "atomics" in target.features
    wide = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "skylake-avx512"}
    assert find_target(json.dumps(wide)).core.lanes == 16
    assert find_target(json.dumps({**wide, "mcpu": "haswell"})).core.lanes == 8
    assert find_target(json.dumps({**wide, "mcpu": "x86-64"})).core.lanes == 4
    assert "avx512f" in find_target(json.dumps(wide)).features


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no target is called ''"),
        ("cortex-m4", "no target is called 'cortex-m4'.*cortex-a72"),
        ("Cortex-A72", "no target is called"),
        ("llvm -mcpu=cortex-a72", "no target is called"),
        ("{", "is not one that TVM takes"),
        ('{"kind": "quantum"}', "is not one that TVM takes"),
        ('{"kind": "llvm", "colour": "red"}', "is not one that TVM takes"),
        ('{"kind": "cuda"}', '"kind": "llvm"'),
        ('{"kind": "llvm"}', '"mtriple"'),
        ('{"kind": "llvm", "mtriple": "armv7a-linux-gnueabihf", "mcpu": "cortex-a9"}', "32-bit"),
        ('{"kind": "llvm", "mtriple": "riscv64-linux-gnu"}', "only 64-bit ARM"),
        ('{"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "../../evil"}', "evil"),
        ('{"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "pentium"}', "pentium"),
        (
            '{"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mattr": ["+a/../../evil"]}',
            "features that are none",
        ),
        ('{"kind": "llvm", "mtriple": 7}', "is not one that TVM takes"),
    ],
)  # fmt: skip
def test_what_is_no_target_here(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        find_target(text)
    assert "\n" not in str(raised.value)
