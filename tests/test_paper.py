"""The paper's tables: its figures as printed, ours from counters and reports alone, and the command that shows both."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

import fermt
from fermt.tracking.speed import Speed
from tools.paper import __main__ as command
from tools.paper import tables
from tools.paper.measured import NO_DAU, Measured, config_of, read_results
from tools.paper.tables import (
    NUMBERED,
    OURS,
    PAPER,
    TABLES,
    Cell,
    PaperTable,
    Timed,
    build_tables,
    published,
)

from .support.scoring import Listed, score, sequence
from .test_imports import ROOT, imported

ROWS = {"cost": 4, "eq7": 3, "1": 15, "2": 14, "3": 6, "4": 5, "5": 3, "6": 2, "speed": 2}
# Read off the paper's pages: table, row, column, figure.
PRINTED = [
    ("1", ("FERMT", "the paper"), "GOT-10k AO", 69.6),
    ("1", ("FERMT", "the paper"), "GOT-10k SR0.75", 63.2),
    ("1", ("FERMT", "the paper"), "TrackingNet P_norm", 85.9),
    ("1", ("FERMT", "the paper"), "LaSOT AUC", 65.1),
    ("1", ("FERMT", "the paper"), "LaSOT P_norm", 74.6),
    ("1", ("FERMT", "the paper"), "fps GPU", 225),
    ("1", ("FERMT", "the paper"), "fps CPU", 51),
    ("1", ("HiT-B", "ICCV 2023"), "GOT-10k AO", 64.0),
    ("1", ("HiT-B", "ICCV 2023"), "fps CPU", 33),
    ("1", ("LightTrack", "CVPR 2021"), "GOT-10k SR0.75", None),
    ("1", ("LightTrack", "CVPR 2021"), "LaSOT P_norm", None),
    ("1", ("E.T.Track", "WACV 2023"), "GOT-10k AO", None),
    ("1", ("E.T.Track", "WACV 2023"), "TrackingNet AUC", 75.0),
    ("1", ("Stark-ST50", "ICCV 2021"), "TrackingNet P", None),
    ("1", ("ARTrack-384", "CVPR 2023"), "LaSOT P", 79.1),
    ("2", ("FERMT", "the paper"), "NFS AUC", 65.1),
    ("2", ("FERMT", "the paper"), "UAV123 AUC", 67.5),
    ("2", ("FERMT", "the paper"), "LaSOT_ext AUC", 46.1),
    ("2", ("MixformerV2-S", "NeurIPS 2023"), "UAV123 AUC", 65.1),
    ("2", ("MixformerV2-S", "NeurIPS 2023"), "NFS AUC", None),
    ("3", ("1", "A1", "A4"), "GOT-10k AO", 65.0),
    ("3", ("6", "A3", "A5"), "GOT-10k SR0.75", 62.1),
    ("4", ("1", "A2A5"), "GOT-10k AO", 68.6),
    ("4", ("4", "A4"), "GOT-10k SR0.75", 49.1),
    ("5", ("1", "3:9"), "GOT-10k AO", 66.4),
    ("5", ("3", "9:3"), "GOT-10k SR0.5", 77.7),
    ("6", ("1", "without"), "LaSOT_ext AUC", 45.5),
    ("6", ("2", "with"), "UAV123 AUC", 67.5),
    ("cost", ("FERMT, center head",), "parameters, M", 7.98),
    ("cost", ("FERMT, center head",), "MACs, G", 2.40),
    ("cost", ("HiT-B",), "parameters, M", 42.14),
    ("cost", ("HiT-B",), "MACs, G", 4.34),
    ("eq7", ("A2",), "A2A5 saves, Sect. 4.3, %", 42),
    ("eq7", ("A3",), "A2A5 saves, Sect. 4.3, %", 31),
    ("eq7", ("A3",), "A2A5 saves, Sect. 3.2, %", 42),
]
COUNTED = [  # worked out apart
    ("cost", ("FERMT, center head",), "parameters, M", 7.979),
    ("cost", ("FERMT, center head",), "MACs less attention, G", 2.397),
    ("cost", ("FERMT, center head",), "MACs, G", 2.671),
    ("cost", ("FERMT, center head",), "of attention, G", 0.274),
    ("eq7", ("A2A5",), "pairs of a layer", 59392),
    ("eq7", ("A2",), "pairs of a layer", 86016),
    ("eq7", ("A3",), "pairs of a layer", 102400),
    ("eq7", ("A2",), "A2A5 saves, %", 100 * (1 - 59392 / 86016)),
    ("eq7", ("A3",), "A2A5 saves, %", 100 * (1 - 59392 / 102400)),
    ("3", ("4", "A2", "A5"), "fewer than A3, %", 42.0),
    ("4", ("3", "A3"), "pairs of a layer", 102400),
    ("5", ("1", "3:9"), "pairs of a layer", (3 * 86016 + 9 * 32768) / 12),
]
SPEED = Speed("packed frame", "cpp", "float32", 0.001, 0.001, 0.02, 0.022, 0.025, 46.0)


def cell(found: PaperTable, labels: tuple[str, ...], column: str, of: str) -> Cell:
    (row,) = [row for row in found.rows if row.labels == labels]
    names = [name.replace("\n", " ") for name in found.columns]
    (one,) = [one for one, name in zip(row.cells, names, strict=True) if one and name == column and one.of == of]
    return one


def cells(found: dict[str, PaperTable], of: str) -> Iterator[tuple[str, int, int, float | None]]:
    """Every figure of one owner, and where it stands."""
    for key, sheet in found.items():
        for i, row in enumerate(sheet.rows):
            for j, one in enumerate(row.cells):
                if one and one.of == of:
                    yield key, i, j, one.value


@pytest.fixture
def reports(tmp_path: Path) -> dict[str, Path]:
    """Files as `fermt eval --json` writes them."""
    made = {}
    for name, title in {"got10k": "GOT-10k val", "lasot": "LaSOT", "nfs": "NFS, 30 frames per second"}.items():
        benchmark = Listed(name, [sequence("one", resolution=(640, 360))])
        benchmark.title = title
        report = score(tmp_path / name, benchmark, tracker=f"ours-{name}")
        made[name] = tmp_path / f"{name}-report.json"
        made[name].write_text(json.dumps({"reports": [report.to_dict()]}))
    return made


def run(*options: str) -> Any:
    return CliRunner().invoke(command.app, [*options], env={"COLUMNS": "120"})


@pytest.mark.parametrize(("table", "labels", "column", "figure"), PRINTED)
def test_the_papers_figures_are_as_printed(table: str, labels: tuple[str, ...], column: str, figure: float) -> None:
    assert cell(build_tables(Measured())[table], labels, column, PAPER).value == figure


def test_every_table_has_its_rows() -> None:
    assert tuple(build_tables(Measured())) == TABLES
    assert {key: len(table["rows"]) for key, table in published().items() if key != "paper"} == ROWS
    for key in TABLES:
        table = published()[key]
        width = len(table.get("columns", [0]))
        assert all(len(row["figures"]) == width for row in table["rows"]), key


@pytest.mark.parametrize(("table", "labels", "column", "figure"), COUNTED)
def test_our_counts(table: str, labels: tuple[str, ...], column: str, figure: float) -> None:
    assert cell(build_tables(Measured())[table], labels, column, OURS).value == pytest.approx(
        figure, abs=5e-4, rel=5e-4
    )


def test_every_ablation_is_counted_live() -> None:
    for number in NUMBERED[2:]:
        found = build_tables(Measured())[number]
        for row, data in zip(found.rows, published()[number]["rows"], strict=True):
            cost = fermt.count_flops(config_of(data["config"]))
            at = cell(found, row.labels, "MACs, G", OURS).value
            assert at == cost.macs / 1e9
            assert cell(found, row.labels, "params, M", OURS).value == cost.parameters / 1e6
            assert config_of(data["config"]).dau is (row.labels == ("2", "with"))


def test_no_figure_of_ours_comes_from_the_paper(monkeypatch: pytest.MonkeyPatch, reports: dict[str, Path]) -> None:
    """Other figures in the paper leave every one of ours as it is; other counts leave the paper's."""
    ours = Measured(
        read_results([f"got10k={reports['got10k']}", f"got10k.a2a4{NO_DAU}={reports['got10k']}"]), {"cpu": 46.0}
    )
    before = build_tables(ours, [Timed("CPU: some", [SPEED])])
    other = copy.deepcopy(published())
    for key in TABLES:
        for row in other[key]["rows"]:
            row["figures"] = [None if figure is None else figure + 1000 for figure in row["figures"]]
    with monkeypatch.context() as patch:
        patch.setattr(tables, "published", lambda: other)
        changed = build_tables(ours, [Timed("CPU: some", [SPEED])])
    assert list(cells(changed, OURS)) == list(cells(before, OURS))
    assert list(cells(changed, PAPER)) != list(cells(before, PAPER))

    class Elsewhere(Measured):
        def figure(self, column: str, config: fermt.ModelConfig) -> float | None:
            return -1.0

        def fewer_pairs(self, config: fermt.ModelConfig, than: fermt.ModelConfig) -> float:
            return -1.0

    changed = build_tables(Elsewhere(), [Timed("CPU: some", [SPEED])])
    assert list(cells(changed, PAPER)) == list(cells(before, PAPER))
    scores = [value for key, _, j, value in cells(changed, OURS) if key in "12" or (key in NUMBERED and j < 6)]
    assert set(scores) == {-1.0}


def test_what_is_ours_does_not_know_the_paper() -> None:
    names = imported(ROOT / "tools" / "paper" / "measured.py")
    assert not [name for name in names if name.endswith(("tables", "paper_format"))]


def test_without_results_nothing_is_measured() -> None:
    for number in NUMBERED:
        count = len(published()[number]["columns"])
        for row in build_tables(Measured())[number].rows:
            ours = [one for one in row.cells if one and one.of == OURS][:count]
            assert all(one.value is None and str(one) == "" for one in ours)
    assert str(Cell(PAPER, None)) == "-"


def test_scores_come_from_reports_in_percent(reports: dict[str, Path]) -> None:
    given = [f"got10k={reports['got10k']}", f"got10k.a2a4{NO_DAU}={reports['got10k']}", f"nfs={reports['nfs']}"]
    found = build_tables(Measured(read_results(given)))
    overlap = 100 * (1 + 1 / 3 + 0 + 3 / 4) / 4  # of the four frames after the first
    assert cell(found["1"], ("FERMT", "this package"), "GOT-10k AO", OURS).value == pytest.approx(overlap)
    assert cell(found["3"], ("3", "A2", "A4"), "GOT-10k AO", OURS).value == pytest.approx(overlap)
    assert cell(found["3"], ("4", "A2", "A5"), "GOT-10k AO", OURS).value is None
    assert cell(found["6"], ("2", "with"), "GOT-10k AO", OURS).value == pytest.approx(overlap)
    printed = json.loads(reports["nfs"].read_text())["reports"][0]["scores"]["AUC"]["value"]
    assert cell(found["2"], ("FERMT", "this package"), "NFS AUC", OURS).value == pytest.approx(printed)
    notes = " ".join(found["3"].notes)
    assert "'ours-got10k' on GOT-10k val, where the paper's are of the test split; protocol got10k" in notes
    assert "1 sequences scored" in notes
    assert str(reports["got10k"]) in notes


def test_a_folder_of_reports(tmp_path: Path, reports: dict[str, Path]) -> None:
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "lasot.json").write_bytes(reports["lasot"].read_bytes())
    (folder / f"got10k.a3a5{NO_DAU}.json").write_text(
        json.dumps(json.loads(reports["got10k"].read_text())["reports"][0])
    )
    found = read_results([str(folder)])
    assert set(found) == {("lasot", fermt.CONFIGS["fermt"]), ("got10k", config_of("a3a5-no-dau"))}


def test_results_that_cannot_be_used(tmp_path: Path, reports: dict[str, Path]) -> None:
    file, bad, two = reports["got10k"], tmp_path / "bad.json", tmp_path / "two.json"
    report = json.loads(file.read_text())["reports"][0]
    bad.write_text('{"reports": [{"benchmark": "GOT-10k val"}]}')
    two.write_text(json.dumps({"reports": [report, report]}))
    (tmp_path / "empty").mkdir()
    for given, message in {
        f"otb100={file}": "expected DATASET or DATASET.CONFIG",
        f"got10k.a9={file}": "unknown configuration 'a9'",
        f"got10k.fermt-corner={file}": "no table has that model on got10k; expected one of got10k.fermt",
        f"got10k.a2a4={file}": "got10k.a2a4-no-dau",
        f"lasot={file}": "expected a report on LaSOT .* got one on 'GOT-10k val'",
        f"lasot_ext={reports['lasot']}": "expected a report on LaSOT_ext .* got one on 'LaSOT'",
        f"got10k={bad}": "as `fermt eval --json` writes it; got KeyError: 'unit'",
        f"got10k={two}": "of one tracker; got 2",
        f"got10k={ROOT / 'README.md'}": "got JSONDecodeError",
        f"got10k={tmp_path / 'none.json'}": "No such file",
        str(tmp_path / "nowhere"): "expected KEY=FILE",
        str(tmp_path / "empty"): "has no reports",
        str(reports["got10k"].parent): "results of '.*': expected DATASET or DATASET.CONFIG",
    }.items():
        result = run("--results", given)
        assert result.exit_code == 1, given
        assert re.search(message, " ".join(result.output.split())), result.output
    twice = run("--results", f"got10k.fermt-no-dau={file}", "--results", f"got10k.a2a5-no-dau={file}")
    assert "two reports of 'got10k.a2a5-no-dau'" in twice.output


def test_the_command_prints_every_table_in_120_columns(tmp_path: Path) -> None:
    out, text = tmp_path / "tables.json", tmp_path / "tables.md"
    result = run("--json", str(out), "--markdown", str(text))
    assert result.exit_code == 0, result.output
    assert "…" not in result.output, "a cell is cut off"
    assert max(map(len, result.output.splitlines())) <= 120
    for sheet in build_tables(Measured()).values():
        assert sheet.title in result.output
        assert f"## {sheet.title}\n" in text.read_text(encoding="utf-8")
    assert "swaps" in result.output
    found = json.loads(out.read_text())
    assert [table["key"] for table in found["tables"]] == list(TABLES)
    assert found["tables"][0]["rows"][0]["cells"][0] == {"of": "paper", "value": 7.98}
    assert found["machines"] == []
    assert "| **7.979** |" in text.read_text(encoding="utf-8")


def test_one_table(tmp_path: Path) -> None:
    result = run("--table", "5")
    assert result.exit_code == 0, result.output
    assert "Table 5" in result.output
    assert "Table 4" not in result.output
    wrong = run("--table", "7")
    assert wrong.exit_code == 2
    assert "got '7'" in wrong.output


def test_speed_is_of_this_machine_and_only_when_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def measure_all(model: fermt.FERMT, clip: object, seconds: float) -> list[Speed]:
        asked.append(seconds)
        return [SPEED]

    monkeypatch.setattr(command, "measure_all", measure_all)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = tmp_path / "speed.json"
    assert run("--table", "speed").exit_code == 0
    assert not asked
    result = run("--table", "1", "--table", "speed", "--speed", "--seconds", "0.5", "--json", str(out))
    assert result.exit_code == 0, result.output
    assert asked == [0.5]
    found = json.loads(out.read_text())
    assert found["machines"][0]["threads"] == torch.get_num_threads()
    assert found["machines"][0]["name"] in result.output
    first, speeds = found["tables"]
    (ours,) = [row for row in first["rows"] if row["labels"] == ["FERMT", "this package"]]
    assert ours["cells"][-2:] == [{"of": "ours", "value": None}, {"of": "ours", "value": 46.0}]
    assert speeds["rows"][-1]["cells"][1:] == [{"of": "ours", "value": value} for value in (50.0, 46.0, 40.0)]
