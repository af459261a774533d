"""Checkpoints that users bring: good ones load, each bad one is named for what it is."""

from __future__ import annotations

import os
import pickle
import pickletools
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from shuffledeploy.model.errors import UsageError
from shuffledeploy.model.registry import build
from shuffledeploy.model.weights import load_weights

State = dict[str, Any]


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 1))


@pytest.mark.parametrize("wrap", [dict, lambda state: {"state_dict": state, "epoch": 3}])
def test_both_forms_of_checkpoint_load(tmp_path: Path, wrap: Callable[[State], State]) -> None:
    source, target = network(), network()
    torch.save(wrap(source.state_dict()), tmp_path / "good.pt")
    load_weights(target, tmp_path / "good.pt")
    for key, value in source.state_dict().items():
        assert torch.equal(target.state_dict()[key], value)


def test_batch_counters_may_be_missing(tmp_path: Path) -> None:
    source, target = network(), network()
    state = {k: v for k, v in source.state_dict().items() if "num_batches" not in k}
    torch.save(state, tmp_path / "old.pt")
    load_weights(target, str(tmp_path / "old.pt"))
    assert torch.equal(target[0].weight, source[0].weight)


def missing(state: State) -> None:
    del state["0.weight"]


def unexpected(state: State) -> None:
    state["head.weight"] = torch.zeros(1)


def reshaped(state: State) -> None:
    state["2.weight"] = torch.zeros(4, 2, 1, 1)


def not_a_number(state: State) -> None:
    state["1.running_var"][1] = float("nan")


def infinite(state: State) -> None:
    state["2.bias"][0] = -float("inf")


def negative_variance(state: State) -> None:
    state["1.running_var"][1] = -1e-3


def sparse(state: State) -> None:
    state["2.weight"] = state["2.weight"].to_sparse()


def without_values(state: State) -> None:
    state["2.bias"] = torch.empty(3, device="meta")


def quantised(state: State) -> None:
    state["0.bias"] = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)


def complex_numbers(state: State) -> None:
    state["0.bias"] = torch.ones(2, dtype=torch.complex64)


def eight_bits(state: State) -> None:
    state["0.bias"] = torch.ones(2).to(torch.float8_e4m3fn)


def yes_and_no(state: State) -> None:
    state["0.bias"] = torch.ones(2, dtype=torch.bool)


def whole_numbers(state: State) -> None:
    state["2.bias"] = torch.ones(3, dtype=torch.int32)


def no_tensor(state: State) -> None:
    state["0.weight"] = [1.0, 2.0]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (missing, "another network: 0.weight is missing"),
        (unexpected, "another network: head.weight is not the network's"),
        (reshaped, r"2.weight is \(4, 2, 1, 1\), the network wants \(3, 2, 1, 1\)"),
        (not_a_number, "cannot be weights: 1.running_var holds NaN"),
        (infinite, "cannot be weights: 2.bias holds infinity"),
        (negative_variance, "cannot be weights: 1.running_var holds negative variances"),
        (sparse, "cannot be weights: 2.weight is sparse"),
        (without_values, r"cannot be weights: 2.bias has no values here \(Tensor on meta\)"),
        (quantised, "cannot be weights: 0.bias is quantised"),
        (complex_numbers, "cannot be weights: 0.bias is complex64"),
        (eight_bits, "cannot be weights: 0.bias is float8_e4m3fn"),
        (yes_and_no, "cannot be weights: 0.bias is bool, the network wants float32"),
        (whole_numbers, "cannot be weights: 2.bias is int32, the network wants float32"),
        (no_tensor, "no state dict"),
        (lambda state: state.clear(), "no state dict"),
    ],
)
def test_bad_state_is_named_and_changes_nothing(
    tmp_path: Path, spoil: Callable[[State], None], message: str
) -> None:
    state = network().state_dict()
    spoil(state)
    torch.save(dict(state), tmp_path / "bad.pt")
    target = network()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(UsageError, match=message):
        load_weights(target, tmp_path / "bad.pt")
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())


def test_only_the_first_few_faults_are_named(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(UsageError, match=r"and \d+ more") as caught:
        load_weights(build("mobilenet-x0.25"), tmp_path / "other.pt")
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("key", ["\x1b[2J", "two\nlines", "\u202e", "x" * 10_000])
def test_a_key_does_not_reach_the_terminal_as_it_is(tmp_path: Path, key: str) -> None:
    torch.save({**network().state_dict(), key: torch.zeros(1)}, tmp_path / "key.pt")
    with pytest.raises(UsageError, match="is not the network's") as caught:
        load_weights(network(), tmp_path / "key.pt")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98])
def test_truncated_file(tmp_path: Path, zipped: bool, kept: float) -> None:
    path = tmp_path / "cut.pt"
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=zipped)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    with pytest.raises(UsageError, match=r"cut.pt is no checkpoint of PyTorch, or .*") as caught:
        load_weights(network(), path)
    assert "\n" not in str(caught.value)


class Trap:
    """A pickle that runs a command when it is read the careless way."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (subprocess.call, (["touch", str(self.marker)],))


@pytest.mark.parametrize("write", ["torch", "pickle"])
def test_code_in_a_file_does_not_run(tmp_path: Path, write: str) -> None:
    path, marker = tmp_path / "trap.pt", tmp_path / "ran"
    if write == "torch":
        torch.save({"weight": Trap(marker)}, path)
    else:
        # Protocol 2 is PyTorch's own: it is the code that must stop the reader, not the protocol.
        path.write_bytes(pickle.dumps({"weight": Trap(marker)}, protocol=2))
    with pytest.raises(UsageError, match="things other than weights"):
        load_weights(network(), path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content", [b"\x80\x6d" + pickle.dumps({"weight": 1}, protocol=2)[2:], b"S'\\K'\n."]
)
def test_odd_pickles_are_refused_without_a_warning(
    tmp_path: Path, recwarn: pytest.WarningsRecorder, content: bytes
) -> None:
    path = tmp_path / "odd.pt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="no checkpoint of PyTorch"):
        load_weights(network(), path)
    assert not list(recwarn)


@pytest.mark.parametrize("nest", [b"h\x01h\x01\x86q\x01", b"(" + 50 * b"h\x01" + b"tq\x01"])
@pytest.mark.parametrize("zipped", [True, False])
def test_tuples_that_take_without_end_to_hash_are_refused(
    tmp_path: Path, nest: bytes, zipped: bool
) -> None:
    key = b"K\x01K\x01\x86q\x01" + 100 * nest
    pickled = b"\x80\x02" + key + b"}h\x01K\x01s."
    path = tmp_path / "deep.pt"
    torch.save(network().state_dict(), path, _use_new_zipfile_serialization=zipped)
    if zipped:
        with zipfile.ZipFile(path) as old:
            members = {name: old.read(name) for name in old.namelist()}
        with zipfile.ZipFile(path, "w") as new:
            for name, content in members.items():
                new.writestr(name, pickled if name.endswith("data.pkl") else content)
    else:
        # With the end of an empty archive behind it, which is not what PyTorch goes by.
        path.write_bytes(_header(path) + pickled + b"PK\x05\x06" + bytes(18))
    with pytest.raises(UsageError, match="a tuple of tuples without end"):
        load_weights(network(), path)


def _header(path: Path) -> bytes:
    """Take the three pickles that stand before the weights in an old file."""
    with path.open("rb") as file:
        for _ in range(3):
            for _ in pickletools.genops(file):
                pass
        end = file.tell()
    return path.read_bytes()[:end]


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pt").write_text("not weights\n")
    for name, message in [
        ("absent.pt", "no file of weights"),
        ("", "is a directory"),
        ("empty.pt", "is empty"),
        ("text.pt", "no checkpoint"),
    ]:
        with pytest.raises(UsageError, match=message):
            load_weights(network(), tmp_path / name)


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "/dev/null"])
def test_pipes_and_devices_are_not_read(tmp_path: Path, kind: str) -> None:
    path = Path(kind) if kind.startswith("/") else tmp_path / "weights.pt"
    if kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(UsageError, match="is a pipe or a device"):
        load_weights(network(), path)


def test_a_packed_checkpoint_is_refused_unread(tmp_path: Path) -> None:
    torch.save(network().state_dict(), tmp_path / "good.pt")
    path = tmp_path / "bomb.pt"
    with (
        zipfile.ZipFile(tmp_path / "good.pt") as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(UsageError, match="is compressed"):
        load_weights(network(), path)


def test_halves_and_doubles_become_the_networks_floats(tmp_path: Path) -> None:
    for kind in (torch.float16, torch.bfloat16, torch.float64):
        source, target = network().to(kind), network()
        torch.save(source.state_dict(), tmp_path / "other.pt")
        load_weights(target, tmp_path / "other.pt")
        assert torch.equal(target[0].weight, source[0].weight.float())


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.pt"
    torch.save(network().state_dict(), path)
    path.chmod(0)
    with pytest.raises(UsageError, match="cannot be read"):
        load_weights(network(), path)
