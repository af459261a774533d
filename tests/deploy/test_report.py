"""`report.py`: what its page tells, that it needs nothing else, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from reported import (
    ALEXNET,
    SHUFFLENET,
    changed_bundle,
    comparison_document,
    peers_document,
    silicon_document,
    written,
)
from tiny import tiny_bundle

from shuffledeploy.compiler.bundle.folder import LIBRARY, REFERENCE
from shuffledeploy.deploy.estimate.llvm_tools import LlvmTools
from shuffledeploy.deploy.report import main

#: What makes a browser fetch or run something.
FETCHES = re.compile(r"https?:|\bsrc\s*=|<script|<link|<iframe|<object|<img|url\(|@import|\bon\w+=")
HOSTILE = "<script>document.title='owned'</script>"

Refused = Callable[[list[str]], str]


@pytest.fixture
def refuse(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Refused:
    """Run the command with a bundle: it must end as a user's mistake of one line, and no page."""

    def run(arguments: list[str]) -> str:
        page = tmp_path / "page.html"
        own = [] if "--output" in arguments else ["--output", str(page)]
        assert main([*arguments, *own]) == 2
        assert not page.exists()
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    return run


def words(page: str) -> str:
    """Give a page without its marks."""
    return " ".join(re.sub(r"<[^>]*>", " ", page.split("<body>")[1]).split())


@pytest.fixture(scope="module")
def local_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Report on this machine: a network that stands for one of the zoo, and another."""
    folder = tmp_path_factory.mktemp("report")
    bundle = tiny_bundle("host", standalone=True)
    named = changed_bundle(bundle, folder / "zoo", network=ALEXNET, options={"model": ALEXNET})
    page = folder / "page.html"
    assert main([str(bundle.path), str(named.path), "--device", "local", "--board",
                 "raspberry-pi-4", "--output", str(page)]) == 0  # fmt: skip
    assert sorted(path.name for path in folder.iterdir()) == ["page.html", "zoo"]
    return page.read_text(encoding="utf-8")


def test_the_page_tells_of_size_fusion_kernels_parity_and_latency(local_page: str) -> None:
    manifest = tiny_bundle("host", standalone=True).manifest
    told = words(local_page)
    for heading in ("Speed", "Kernels by their share", "What was fused", "Size", "Parity with"):
        assert told.count(f" {heading} ") >= 2
    assert f"kernel calls of one inference {manifest.kernel_calls} counted" in told
    assert "calls that only shuffle channels 0 counted" in told
    # 8x8 pixels of 3x3x3 to 8 and of 8 to 8 channels, and 8 to 10 classes.
    assert f"multiply-adds of one inference {(64 * (27 * 8 + 8 * 8) + 80) / 1e6:.3g} M" in told
    assert re.search(r"largest error of a logit \d\.\de-\d\d measured", told)
    assert re.search(r"latency [\d.e-]+ ms measured", told)
    assert "libtiny.a" in told
    for kernel in manifest.kernels:
        assert kernel.name in told
    assert re.search(r"raspberry-pi-4 at 1.8 GHz not estimated the library is built for", told)


def test_every_figure_has_its_kind(local_page: str) -> None:
    kinds = {"measured", "counted", "simulated", "estimated"}
    assert set(re.findall(r'<span class="kind (\w+)">', local_page)) <= kinds
    for caption, svg in re.findall(r"<figcaption>(.*?)</figcaption>\s*<svg(.*?)</svg>", local_page,
                                   re.DOTALL):  # fmt: skip
        values = re.findall(r'<text class="value"[^>]*>([^<]*)</text>', svg)
        assert values
        assert 'class="kind' in caption or all(value.endswith(tuple(kinds)) for value in values)
    for line in re.findall(r"<dd>([^<]*\d[^<]*)<(?!span class=.kind)", local_page):
        assert not re.search(r"\d (ms|M|MB|kB)\b", line)


def test_the_page_needs_nothing_but_itself(local_page: str) -> None:
    assert not FETCHES.search(local_page)
    assert "default-src 'none'" in local_page
    names = re.findall(r'\bid="([^"]*)"', local_page)
    # Two networks, and both side by side.
    assert len(names) == len(set(names)) == 3
    assert set(re.findall(r'href="#([^"]*)"', local_page)) == set(names)


def test_names_from_outside_are_only_text(tmp_path: Path) -> None:
    bundle = tiny_bundle("host")
    (image,) = bundle.manifest.inputs
    turned = "a\u202eb"
    hostile = changed_bundle(
        bundle, tmp_path / "hostile", network=HOSTILE, cpu='"><b>', target=turned,
        inputs=(type(image)(HOSTILE, image.shape, image.dtype),),
    )  # fmt: skip
    page = tmp_path / "page.html"
    assert main([str(hostile.path), "--device", "local", "--output", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert not FETCHES.search(text.replace("&#39;", "'"))
    assert text.count("&lt;script&gt;") >= 3
    assert "<b>" not in text
    assert turned not in text
    assert r"a\u202eb" in text


@pytest.mark.emulated
def test_boards_are_estimated_with_errors_beside_other_engines(
    board_built: None, tools: LlvmTools, tmp_path: Path
) -> None:
    bundle = changed_bundle(
        tiny_bundle("arm"), tmp_path / "zoo", network=SHUFFLENET, options={"model": SHUFFLENET}
    )
    page = tmp_path / "page.html"
    files = (
        ("--silicon", silicon_document()), ("--peers", peers_document()),
        ("--compare", comparison_document(resolution="16x16")),
    )  # fmt: skip
    named = [
        word
        for option, document in files
        for word in (option, str(written(tmp_path / f"{option}.json", document)))
    ]
    boards = ["--board", "raspberry-pi-4", "--board", "arduino-uno-q"]
    assert main([str(bundle.path), *boards, *named, "--output", str(page)]) == 0
    told = words(page.read_text(encoding="utf-8"))
    assert "median error 9%, largest 20%, beside 25 published times" in told
    assert re.search(r"arduino-uno-q at 2 GHz [\d.e-]+ ms estimated code .* is not known", told)
    assert re.search(r"instructions of one inference [\d.e-]+ M counted", told)
    assert "ncnn 1.2 42 M 21 M" in told
    assert "newcomer 1.2 24 M 12 M" in told
    assert "Networks side by side" in told
    assert "16.3x" in told
    # What an emulator takes is no latency.
    assert "ms measured" not in told


def test_a_bundle_whose_answers_are_wrong_gets_no_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    bundle = tiny_bundle("host", "tiny", broken=True)
    assert main([str(bundle.path), "--device", "local", "--output", str(page)]) == 1
    assert "parity on local" in capsys.readouterr().err
    assert not page.exists()


def test_bundles_that_are_none_or_broken_or_alike_are_refused(
    refuse: Refused, tmp_path: Path
) -> None:
    good = tiny_bundle("host")
    assert "is not a bundle" in refuse([str(tmp_path / "none")])
    broken = changed_bundle(good, tmp_path / "broken").path
    (broken / LIBRARY).write_bytes((broken / REFERENCE).read_bytes())
    assert "was changed after it was built" in refuse([str(good.path), str(broken)])
    copy = changed_bundle(good, tmp_path / "copy").path
    assert "are both tiny" in refuse([str(good.path), str(copy)])
    assert "are both tiny" in refuse([str(good.path), str(good.path)])


def test_what_cannot_be_written_or_found_is_refused(refuse: Refused, tmp_path: Path) -> None:
    bundle = str(tiny_bundle("host").path)
    nowhere = str(tmp_path / "none" / "page.html")
    assert "there is no folder" in refuse([bundle, "--output", nowhere])
    assert "is a folder" in refuse([bundle, "--output", str(tmp_path)])
    assert "no board is called" in refuse([bundle, "--board", "raspberry-pi-9"])
    twice = ["--board", "raspberry-pi-4", "--board", "raspberry-pi-4"]
    assert "names a board twice" in refuse([bundle, *twice])
    assert "names no device" in refuse([bundle, "--device", "toaster"])


def test_files_of_another_kind_are_refused(refuse: Refused, tmp_path: Path) -> None:
    bundle = str(tiny_bundle("host").path)
    peers = str(written(tmp_path / "peers.json", peers_document()))
    compared = str(written(tmp_path / "compared.json", comparison_document()))
    assert "is no file of peers.py" in refuse([bundle, "--peers", compared])
    assert "is no file of compare.py" in refuse([bundle, "--compare", peers])
    assert "is no file of validate_silicon.py" in refuse([bundle, "--silicon", peers])
    assert "there is no file" in refuse([bundle, "--peers", str(tmp_path / "none.json")])
    (tmp_path / "noise.json").write_bytes(b"\xff[[")
    assert "is no file of" in refuse([bundle, "--compare", str(tmp_path / "noise.json")])


def test_times_of_an_emulator_are_refused(refuse: Refused, tmp_path: Path) -> None:
    bundle = str(tiny_bundle("host").path)
    timed = written(tmp_path / "timed.json", comparison_document(kind="measured"))
    assert "times of an emulated device" in refuse([bundle, "--compare", str(timed)])
    mixed = written(tmp_path / "mixed.json", comparison_document(kind="counted"))
    assert "ms cannot be counted" in refuse([bundle, "--compare", str(mixed)])
