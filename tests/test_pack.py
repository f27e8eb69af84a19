"""Archives for evaluation servers: written, read back, and what is wrong with other people's."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from fermt.cli import app
from fermt.datasets import open_benchmark
from fermt.evaluation.pack import pack
from fermt.evaluation.results import write_result
from fermt.evaluation.submissions import SUBMISSIONS
from fermt.evaluation.validate import Finding, check_archive

from .support import clips, datasets
from .support.errors import lacking

NAMES = clips.names("test")
COUNTED = ("number of sequences", False)  # a miniature has fewer than the server wants
Files = dict[str, str]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = clips.got10k(tmp_path_factory.mktemp("got10k"), "test")
    for i, name in enumerate(("abc_0", "-x_0")):
        datasets.write_rows(made / "TEST" / "anno" / f"{name}.txt", [clips.box(i, 0)])
        for t in range(3 + i):
            datasets.write_image(made / "TEST" / "frames" / name / f"{t}.jpg", datasets.color(i, t))
    return made


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    for i, (name, count) in enumerate(zip(NAMES, clips.LENGTHS, strict=True)):
        write_result(folder, name, rows(i, count), np.full(count, 0.01))
    return folder


def rows(i: int, count: int) -> np.ndarray:
    return np.array([clips.box(i, t) for t in range(count)])


def lines(table: np.ndarray, separator: str = ",") -> str:
    return "".join(separator.join(f"{value:.3f}" for value in row) + "\n" for row in table)


def good() -> Files:
    """A right archive for the miniature."""
    files = {}
    for i, (name, count) in enumerate(zip(NAMES, clips.LENGTHS, strict=True)):
        files[f"{name}/{name}_001.txt"] = lines(rows(i, count))
        files[f"{name}/{name}_time.txt"] = "0.01\n" * count
    return files


def zipped(path: Path, files: Files, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def kinds(findings: list[Finding]) -> set[tuple[str, bool]]:
    return {(finding.kind, finding.fault) for finding in findings} - {COUNTED}


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["pack", *map(str, arguments)], env={"COLUMNS": "400", "TERMINAL_WIDTH": "400"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, " ".join(result.output.replace("│", "").split())


def test_got10k_packed_and_read_back(root: Path, results: Path, tmp_path: Path) -> None:
    code, printed = run("--dataset", f"got10k={root}", "--results", results, "--out", tmp_path / "a.zip")
    assert code == 0, printed
    assert "no fault" in printed
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.namelist() == [f"{name}/{name}_{part}.txt" for name in NAMES for part in ("001", "time")]
        for i, (name, count) in enumerate(zip(NAMES, clips.LENGTHS, strict=True)):
            assert archive.read(f"{name}/{name}_001.txt").decode() == lines(rows(i, count))
            assert archive.read(f"{name}/{name}_time.txt").decode() == "0.01000000\n" * count
    assert run("--check", tmp_path / "a.zip", "--dataset", f"got10k={root}")[0] == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.zip", "results"]


def test_the_same_results_give_the_same_bytes(root: Path, results: Path, tmp_path: Path) -> None:
    benchmark = open_benchmark("got10k", root, split="test")
    for name in ("a.zip", "b.zip"):
        pack(results, benchmark, tmp_path / name)
        for path in results.rglob("*.txt"):
            path.touch()
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_repetitions_in_the_toolkits_layout(root: Path, tmp_path: Path) -> None:
    nested = tmp_path / "nested"
    for i, (name, count) in enumerate(zip(NAMES, clips.LENGTHS, strict=True)):
        (nested / name).mkdir(parents=True)
        for repetition in range(1, 4):
            (nested / name / f"{name}_{repetition:03d}.txt").write_text(lines(rows(i, count) + repetition - 1, "\t"))
        (nested / name / f"{name}_time.txt").write_text("0.1,0.2,0.3\n" * count)
    assert kinds(pack(nested, open_benchmark("got10k", root, split="test"), tmp_path / "a.zip")) == {
        ("first box is not the given one", False)
    }
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        name, count = NAMES[1], clips.LENGTHS[1]
        assert archive.read(f"{name}/{name}_003.txt").decode() == lines(rows(1, count) + 2)
        assert archive.read(f"{name}/{name}_time.txt").decode() == "0.10000000,0.20000000,0.30000000\n" * count


def test_trackingnet_is_flat(root: Path, tmp_path: Path) -> None:
    for i, name in enumerate(("abc_0", "-x_0")):
        write_result(tmp_path / "results", name, rows(i, 3 + i), np.ones(3 + i))
    code, printed = run(
        "--dataset", f"trackingnet={root}", "--results", tmp_path / "results", "--out", tmp_path / "t.zip"
    )
    assert code == 0, printed
    with zipfile.ZipFile(tmp_path / "t.zip") as archive:
        assert archive.namelist() == ["-x_0.txt", "abc_0.txt"]
        assert archive.read("abc_0.txt").decode() == lines(rows(0, 3))
        files = {name: archive.read(name).decode() for name in archive.namelist()}
    benchmark = open_benchmark("trackingnet", root)
    wrapped = zipped(tmp_path / "w.zip", {f"out/{name}": text for name, text in files.items()})
    assert kinds(check_archive(wrapped, "trackingnet", benchmark)) == {("extra folder", True)}
    with_folder = zipped(tmp_path / "f.zip", files | {"more/": ""})
    assert kinds(check_archive(with_folder, "trackingnet", benchmark)) == {("extra file or folder", True)}
    assert {finding for finding in check_archive(tmp_path / "t.zip", "trackingnet") if finding.fault} == {
        Finding("number of sequences", "2, and the server wants 511", True)
    }


NAME = NAMES[1]
BOXES, TIMES = f"{NAME}/{NAME}_001.txt", f"{NAME}/{NAME}_time.txt"
COUNT = clips.LENGTHS[1]
NOT_FOUR, TAB = "not 4 finite numbers with commas between", "\t"


def replaced(file: str, change: Callable[[str], str]) -> Callable[[Files], Files]:
    return lambda files: files | {file: change(files[file])}


def line(text: str, number: int = 4) -> Callable[[Files], Files]:
    """With another line in the boxes of one sequence."""

    def change(before: str) -> str:
        parts = before.splitlines()
        parts[number - 1] = text
        return "\n".join(parts) + "\n"

    return replaced(BOXES, change)


def without(*names: str) -> Callable[[Files], Files]:
    return lambda files: {name: text for name, text in files.items() if name not in names}


def repeated(*numbers: int) -> Callable[[Files], Files]:
    """One sequence with these repetitions besides the first."""
    return lambda files: files | {f"{NAME}/{NAME}_{number:03d}.txt": files[BOXES] for number in numbers}


FAULTS: dict[str, tuple[Callable[[Files], Files], str, str]] = {
    "sequence": (without(BOXES, TIMES), "missing sequence", NAME),
    "boxes": (without(BOXES), "missing sequence", NAME),
    "times": (without(TIMES), "missing file of times", TIMES),
    "stranger": (lambda files: files | {"GOT-10k_Test_000181/GOT-10k_Test_000181_001.txt": "1,2,3,4\n"},
                 "extra sequence", "GOT-10k_Test_000181/GOT-10k_Test_000181_001.txt"),
    "note": (lambda files: files | {"__MACOSX/x": ""}, "extra file or folder", "__MACOSX/x"),
    "deeper": (lambda files: files | {f"{NAME}/more/a.txt": ""}, "extra file or folder", f"{NAME}/more/a.txt"),
    "flat": (lambda files: files | {f"{NAME}.txt": ""}, "extra file or folder", f"{NAME}.txt"),
    "tabs": (replaced(BOXES, lambda text: text.replace(",", "\t")), NOT_FOUR,
             f"{BOXES}, line 1: {lines(rows(1, 1), TAB).strip()!r} and {COUNT - 1} more"),
    "spaces": (line("1 2 3 4"), NOT_FOUR, f"{BOXES}, line 4: '1 2 3 4'"),
    "semicolons": (line("1;2;3;4"), NOT_FOUR, f"{BOXES}, line 4: '1;2;3;4'"),
    "columns": (line("1,2,3"), NOT_FOUR, f"{BOXES}, line 4: '1,2,3'"),
    "blank": (line(""), NOT_FOUR, f"{BOXES}, line 4: ''"),
    "word": (line("1,2,x,4"), NOT_FOUR, f"{BOXES}, line 4: '1,2,x,4'"),
    "underscore": (line("1,2,1_0,4"), NOT_FOUR, f"{BOXES}, line 4: '1,2,1_0,4'"),
    "nan": (line("1,2,nan,4"), NOT_FOUR, f"{BOXES}, line 4: '1,2,nan,4'"),
    "infinity": (line("1,-inf,3,4"), NOT_FOUR, f"{BOXES}, line 4: '1,-inf,3,4'"),
    "overflow": (line("1,1e999,3,4"), NOT_FOUR, f"{BOXES}, line 4: '1,1e999,3,4'"),
    "a long line": (line("1," * 99), NOT_FOUR, f"{BOXES}, line 4: {'1,' * 20!r}"),
    "negative": (line("1,2,3,-4"), "negative width or height", f"{BOXES}, line 4"),
    "short": (replaced(BOXES, lambda text: text[: text.rindex("\n", 0, -1) + 1]), "number of rows",
              f"{BOXES} has {COUNT - 1}, and the sequence {COUNT} frames"),
    "long": (replaced(BOXES, lambda text: text + "1,2,3,4\n"), "number of rows",
             f"{BOXES} has {COUNT + 1}, and the sequence {COUNT} frames"),
    "empty": (replaced(BOXES, lambda text: ""), "empty file", BOXES),
    "short times": (replaced(TIMES, lambda text: "0.1\n"), "number of rows", f"{TIMES} has 1 times for {COUNT} frames"),
    "negative time": (replaced(TIMES, lambda text: text.replace("0.01", "-1", 1)), "negative time", f"{TIMES}, line 1"),
    "times of two": (replaced(TIMES, lambda text: "0.1,0.2\n" * COUNT), "not 1 finite number",
                     f"{TIMES}, line 1: '0.1,0.2' and {COUNT - 1} more"),
    "spaces in times": (lambda files: repeated(2, 3)(files) | {TIMES: "0.1 0.2 0.3\n" * COUNT},
                        "not 3 finite numbers with commas between",
                        f"{TIMES}, line 1: '0.1 0.2 0.3' and {COUNT - 1} more"),
    "times of one and of three": (
        lambda files: repeated(2, 3)(files) | {TIMES: "0.1\n" + "0.1,0.2,0.3\n" * (COUNT - 1)},
        "not 1 finite number", f"{TIMES}, line 2: '0.1,0.2,0.3' and {COUNT - 2} more"),
    "nothing before a comma": (line(",2,3,4"), NOT_FOUR, f"{BOXES}, line 4: ',2,3,4'"),
    "repetition 0": (lambda files: files | {f"{NAME}/{NAME}_000.txt": files[BOXES]}, "extra file or folder",
                     f"{NAME}/{NAME}_000.txt"),
    "gap": (repeated(3), "numbers of repetitions", f"{NAME} has 001, 003; expected 001 to 003 at most"),
    "four": (repeated(2, 3, 4), "numbers of repetitions",
             f"{NAME} has 001, 002, 003, 004; expected 001 to 003 at most"),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_every_fault_is_named(case: str, root: Path, tmp_path: Path) -> None:
    change, kind, where = FAULTS[case]
    findings = check_archive(
        zipped(tmp_path / "a.zip", change(good())), "got10k", open_benchmark("got10k", root, split="test")
    )
    faults = [finding for finding in findings if finding.fault]
    assert faults == [Finding(kind, where, True)]


WARNINGS: dict[str, tuple[Callable[[Files], Files], str]] = {
    "zero": (line("1,2,0,4"), "zero width or height, a miss"),
    "first": (line("1,2,3,4", 1), "first box is not the given one"),
    "repetitions": (repeated(2), "fewer repetitions"),
    "folder": (lambda files: {f"tracker/{name}": text for name, text in files.items()}, "extra folder"),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_a_warning_is_no_fault(case: str, root: Path, tmp_path: Path) -> None:
    change, kind = WARNINGS[case]
    path = zipped(tmp_path / "a.zip", change(good()))
    assert kinds(check_archive(path, "got10k", open_benchmark("got10k", root, split="test"))) == {(kind, False)}
    code, printed = run("--check", path, "--dataset", f"got10k={root}")
    assert code == 0
    assert f"warning: {kind} (1): " in printed


def test_two_folders_around_everything_are_a_fault_and_what_is_in_them_is_read(root: Path, tmp_path: Path) -> None:
    files = {f"a/b/{name}": text for name, text in without(TIMES)(good()).items()} | {"a/": "", "a/b/": ""}
    findings = check_archive(zipped(tmp_path / "a.zip", files), "got10k", open_benchmark("got10k", root, split="test"))
    assert kinds(findings) == {("extra folder", True), ("missing file of times", True)}


def test_good_archives_of_other_archivers(root: Path, tmp_path: Path) -> None:
    """Entries for folders, other compression, other ends of lines, spaces after commas."""
    files = {f"{name}/": "" for name in NAMES}
    files |= {name: text.replace("\n", "\r\n").replace(",", ", ") for name, text in good().items()}
    path = zipped(tmp_path / "a.zip", files, zipfile.ZIP_STORED)
    assert kinds(check_archive(path, "got10k", open_benchmark("got10k", root, split="test"))) == set()


def test_a_file_twice(root: Path, tmp_path: Path) -> None:
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(zipped(tmp_path / "a.zip", good()), "a") as archive,
    ):
        archive.writestr(BOXES, "1,2,3,4\n")
    findings = check_archive(tmp_path / "a.zip", "got10k", open_benchmark("got10k", root, split="test"))
    assert ("file that is there twice", True) in kinds(findings)


def test_damage(root: Path, tmp_path: Path) -> None:
    benchmark = open_benchmark("got10k", root, split="test")
    path = zipped(tmp_path / "a.zip", good(), zipfile.ZIP_STORED)
    data = path.read_bytes()
    path.write_bytes(data.replace(good()[BOXES].encode(), good()[BOXES].replace("26", "27").encode()))
    (finding,) = [finding for finding in check_archive(path, "got10k", benchmark) if finding.fault]
    assert finding.kind == "damaged file"
    assert finding.where.startswith(f"{BOXES}: Bad CRC-32")
    path.write_bytes(data[: len(data) // 2])
    assert kinds(check_archive(path, "got10k", benchmark)) == {("not a zip archive", True)}
    path.write_bytes(b"Rar!")
    assert kinds(check_archive(path, "got10k", benchmark)) == {("not a zip archive", True)}
    binary = {BOXES: b"\xff\xfe1,2,3,4"}
    path = zipped(tmp_path / "b.zip", good() | binary)
    assert kinds(check_archive(path, "got10k", benchmark)) == {("damaged file", True)}
    huge = zipped(tmp_path / "c.zip", good() | {BOXES: "0" * (1 << 27)})
    (finding,) = [finding for finding in check_archive(huge, "got10k", benchmark) if finding.fault]
    assert finding == Finding("damaged file", f"{BOXES} has 134,217,728 bytes, which no result has", True)
    with pytest.raises(FileNotFoundError, match="nothing.zip"):
        check_archive(tmp_path / "nothing.zip", "got10k", benchmark)


def test_without_the_data_the_published_names_are_asked_for(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", good())
    code, printed = run("--check", path, "--dataset", "got10k")
    assert code == 1
    assert lacking(printed, "fault", 176, "GOT-10k_Test_000005", 171) == []
    whole = {
        file.format(name, 1): "1,2,3,4\n" if file == SUBMISSIONS["got10k"].boxes else "0.1\n"
        for name in SUBMISSIONS["got10k"].names
        for file in (SUBMISSIONS["got10k"].boxes, SUBMISSIONS["got10k"].times)
    }
    code, printed = run("--check", zipped(tmp_path / "b.zip", whole), "--dataset", "got10k")
    assert (code, "were not checked: give --dataset got10k=FOLDER" in printed) == (0, True), printed


def test_nothing_is_written_with_a_fault(root: Path, results: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in results.rglob("*.txt")}
    faults: dict[str, tuple[str, str]] = {
        f"{NAME}.txt": ("", "damaged file"),
        f"times/{NAME}_time.txt": ("0.1\n", "number of rows"),
    }
    for file, (text, kind) in faults.items():
        (results / file).write_text(text)
        code, printed = run("--dataset", f"got10k={root}", "--results", results, "--out", tmp_path / "a.zip")
        assert code == 1
        assert f"fault: {kind} (1)" in printed
        assert "nothing was written" in printed
        (results / file).write_bytes(before[results / file])
    for file, kind in ((f"{NAME}.txt", "missing sequence"), (f"times/{NAME}_time.txt", "missing file of times")):
        (results / file).unlink()
        code, printed = run("--dataset", f"got10k={root}", "--results", results, "--out", tmp_path / "a.zip")
        assert (code, f"fault: {kind} (1)" in printed) == (1, True), printed
        (results / file).write_bytes(before[results / file])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results"]


def test_what_it_refuses(root: Path, results: Path, tmp_path: Path) -> None:
    refused = {
        "ends in .zip": ("--dataset", f"got10k={root}", "--results", results, "--out", "a.tar"),
        "Expected layout": ("--dataset", f"got10k={root}", "--results", tmp_path / "none", "--out", tmp_path / "a.zip"),
        "there is no '": ("--dataset", f"got10k={tmp_path}", "--results", results, "--out", tmp_path / "a.zip"),
        "dataset must be one of got10k, trackingnet; got 'lasot'": ("--check", "a.zip", "--dataset", "lasot"),
        "give --results DIR to pack results, or --check FILE": ("--dataset", "got10k"),
        "there is no file": ("--check", tmp_path / "a.zip", "--dataset", "got10k"),
    }
    for expected, arguments in refused.items():
        code, printed = run(*arguments)
        assert code != 0
        assert expected in printed, (expected, printed)


def test_times_of_a_run_that_shared_its_machine_are_remarked_on(root: Path, results: Path, tmp_path: Path) -> None:
    for speed in ("2 processes at once", ""):
        (results / "run.json").write_text(json.dumps({"run": {}, "speed": speed}))
        code, printed = run("--dataset", f"got10k={root}", "--results", results, "--out", tmp_path / "a.zip")
        assert code == 0
        assert ("no measurement of speed (2 processes at once)" in printed) is bool(speed)
