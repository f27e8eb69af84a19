"""Builds the paper's tables with our figures beside them.

The paper's figures are data (paper_tables.json) and fill only cells that belong to the paper; our figures come from
`Measured`, which does not know the paper's.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, NamedTuple

from fermt.config import ModelConfig
from fermt.tracking.speed import PROTOCOL, Speed

from .measured import DATASETS, Measured, Reported, config_of

PAPER, OURS = "paper", "ours"
SCORES = {"Pn": "P_norm"}  # names in print
DEVICES = {"gpu": "GPU", "cpu": "CPU"}
NUMBERED = ("1", "2", "3", "4", "5", "6")
TABLES = ("cost", "eq7", *NUMBERED, "speed")


class Cell(NamedTuple):
    """One figure and its owner, PAPER or OURS. None: the paper does not give it, or we have not measured it."""

    of: str
    value: float | None
    digits: int = 1

    def __str__(self) -> str:
        if self.value is None:
            return "-" if self.of == PAPER else ""
        return f"{self.value:,.{self.digits}f}"


class Row(NamedTuple):
    labels: tuple[str, ...]
    cells: tuple[Cell | None, ...]  # None: empty
    group: str = ""  # heading above consecutive rows of the same group


class PaperTable(NamedTuple):
    """One table of the paper."""

    key: str
    title: str
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()

    def owner(self, column: int) -> str:
        """The owner of a column's figures if it is the same for all, else ""."""
        owners = {cell.of for cell in (row.cells[column] for row in self.rows) if cell}
        return owners.pop() if len(owners) == 1 else ""

    def to_dict(self) -> dict[str, Any]:
        """The table in JSON's types."""
        rows = [
            row._asdict() | {"cells": [cell and {"of": cell.of, "value": cell.value} for cell in row.cells]}
            for row in self.rows
        ]
        return self._asdict() | {"rows": rows}


class Timed(NamedTuple):
    """Speeds measured on one device."""

    device: str  # its name in print
    speeds: Sequence[Speed]


@functools.cache
def published() -> dict[str, Any]:
    """Reads the paper's figures."""
    data: dict[str, Any] = json.loads(files(__package__).joinpath("paper_tables.json").read_text(encoding="utf-8"))
    return data


def build_tables(ours: Measured, timed: Sequence[Timed] = ()) -> dict[str, PaperTable]:
    """Builds every table, by its name in `TABLES`."""
    built = (
        _cost(ours),
        _equation_7(ours),
        _comparison("1", ours, [f"Ours, {name}" for name in map(_counted, timed)]),
        _comparison("2", ours),
        *(_ablation(number, ours) for number in NUMBERED[2:]),
        _speed(timed),
    )
    return {table.key: table for table in built}


def _paper(figures: Iterable[float | None], digits: int = 1) -> tuple[Cell, ...]:
    return tuple(Cell(PAPER, value, digits) for value in figures)


def _ours(figures: Iterable[float | None], digits: int = 1) -> tuple[Cell, ...]:
    return tuple(Cell(OURS, value, digits) for value in figures)


def _cost(ours: Measured) -> PaperTable:
    table = published()["cost"]
    rows = []
    for row in table["rows"]:
        parameters, macs, dau = row["figures"]
        cells = (*_paper((parameters, macs), 2), *_paper((dau,), 0))
        if "config" in row:
            cost = ours.cost(config_of(row["config"]))
            giga = (cost.macs_without_attention / 1e9, cost.macs / 1e9, cost.attention / 1e9)
            cells += _ours((cost.parameters / 1e6, *giga), 3) + _ours((cost.dau / 1e6,))
        rows.append(Row(tuple(row["labels"]), (*cells, *[None] * (8 - len(cells)))))
    columns = ("parameters,\nM", "MACs, G", "of DAU, M")
    more = ("parameters,\nM", "MACs less\nattention, G", "MACs, G", "of attention,\nG", "of DAU, M")
    position = ours.cost(config_of("fermt")).position_parameters
    notes = (
        *table["notes"],
        f"Ours leaves out the position tables ({position:,} parameters), as the paper's figure does.",
    )
    return PaperTable("cost", table["title"], ("Model",), columns + more, tuple(rows), notes)


def _equation_7(ours: Measured) -> PaperTable:
    table = published()["eq7"]
    fermt = config_of("fermt")
    n, m = fermt.num_template, fermt.num_search
    fewest = config_of(table["rows"][0]["config"])
    rows = []
    for row in table["rows"]:
        *terms, ablation, method = row["figures"]
        config = config_of(row["config"])
        by_formula = terms[0] * n * n + terms[1] * n * m + terms[2] * m * m
        fewer = None if config == fewest else ours.fewer_pairs(fewest, config)
        cells = (
            *_paper(terms),
            *_paper((by_formula, ablation, method), 0),
            *_ours((ours.cost(config).mean_score_pairs,), 0),
            *_ours((fewer,)),
            *_ours((ours.cost(config).attention / 1e9,), 3),
        )
        rows.append(Row(tuple(row["labels"]), cells))
    columns = ("n²", "nm", "m²", f"with n = {n},\nm = {m}", "A2A5 saves,\nSect. 4.3, %", "A2A5 saves,\nSect. 3.2, %")
    more = ("pairs of\na layer", "A2A5\nsaves, %", "attention's\nMACs, G")
    return PaperTable("eq7", table["title"], ("Model",), columns + more, tuple(rows), tuple(table["notes"]))


def _comparison(number: str, ours: Measured, notes: Sequence[str] = ()) -> PaperTable:
    """A comparison of trackers: our figures are a row below the paper's FERMT."""
    table = published()[number]
    columns = table["columns"]
    digits = [0 if column.startswith("fps.") else 1 for column in columns]
    rows = []
    for row in table["rows"]:
        group = row.get("group", "real-time")
        cells = tuple(Cell(PAPER, *found) for found in zip(row["figures"], digits, strict=True))
        rows.append(Row(tuple(row["labels"]), cells, group))
        if "config" in row:
            config = config_of(row["config"])
            cells = tuple(Cell(OURS, ours.figure(column, config), d) for column, d in zip(columns, digits, strict=True))
            rows.append(Row((row["labels"][0], "this package"), cells, group))
    notes = (*table["notes"], *_sources(ours, number), *notes)
    return PaperTable(number, table["title"], tuple(table["labels"]), _headings(columns), tuple(rows), notes)


def _ablation(number: str, ours: Measured) -> PaperTable:
    """An ablation: our scores and counts are columns beside the paper's scores."""
    table = published()[number]
    columns = table["columns"]
    full = config_of("a3-no-dau")
    rows = []
    for row in table["rows"]:
        config = config_of(row["config"])
        cost = ours.cost(config)
        cells = (
            *_paper(row["figures"]),
            *_ours(ours.figure(column, config) for column in columns),
            *_ours((cost.parameters / 1e6, cost.macs_without_attention / 1e9, cost.macs / 1e9), 3),
            *_ours((cost.mean_score_pairs,), 0),
            *_ours((ours.fewer_pairs(config, full),)),
        )
        rows.append(Row(tuple(row["labels"]), cells))
    headings = _headings(columns)
    more = ("params,\nM", "MACs less\nattn., G", "MACs,\nG", "pairs of\na layer", "fewer than\nA3, %")
    notes = (*table["notes"], *_sources(ours, number))
    return PaperTable(number, table["title"], tuple(table["labels"]), headings * 2 + more, tuple(rows), notes)


def _speed(timed: Sequence[Timed]) -> PaperTable:
    table = published()["speed"]
    rows = [Row(tuple(row["labels"]), (*_paper(row["figures"], 0), None, None, None)) for row in table["rows"]]
    for device in timed:
        for speed in device.speeds:
            rates = (1 / speed.network, speed.got10k_fps, 1 / speed.with_decode)
            rows.append(Row((device.device, f"{speed.name}, {speed.dtype}"), (None, *_ours(rates, 0))))
    if not timed:
        rows.append(Row(("this machine", "measured with --speed"), (None, *_ours((None,) * 3))))
    columns = ("frames/s", "network,\nframes/s", "update,\nframes/s", "with decode,\nframes/s")
    said = zip(("network", "update", "with decode"), ("network", "got10k_fps", "with_decode"), strict=True)
    notes = (*table["notes"], *(f"{name}: {PROTOCOL[part]}" for name, part in said))
    return PaperTable("speed", table["title"], ("Device", "Runs"), columns, tuple(rows), notes)


def _headings(columns: Sequence[str]) -> tuple[str, ...]:
    pairs = [column.split(".", 1) for column in columns]
    names = DATASETS | {"fps": "fps"}
    return tuple(f"{names[first]}\n{(SCORES | DEVICES).get(score, score)}" for first, score in pairs)


def _results(number: str) -> dict[tuple[str, ModelConfig], str]:
    """The data sets and configurations of one of Tables 1 to 6, with the configurations' names."""
    table = published()[number]
    names = [row["config"] for row in table["rows"] if "config" in row]
    sets = dict.fromkeys(column.split(".")[0] for column in table["columns"] if not column.startswith("fps."))
    return {(dataset, config_of(name)): name for name in names for dataset in sets}


def check_used(reports: Mapping[tuple[str, ModelConfig], Reported]) -> None:
    """Raises ValueError if a report has no place in any table."""
    places = {key: f"{key[0]}.{name}" for number in NUMBERED for key, name in _results(number).items()}
    for key, report in reports.items():
        if key not in places:
            expected = ", ".join(dict.fromkeys(places.values()))
            raise ValueError(f"{str(report.file)!r}: no table has that model on {key[0]}; expected one of {expected}")


def _sources(ours: Measured, number: str) -> list[str]:
    """The report that each of our scores comes from."""
    return [
        f"Ours, {name}: {_source(ours.reports[key])}" for key, name in _results(number).items() if key in ours.reports
    ]


def _source(report: Reported) -> str:
    unscored = f", {report.unscored} without a usable result" if report.unscored else ""
    other = ", where the paper's are of the test split" if report.benchmark.startswith("GOT-10k val") else ""
    return (
        f"{report.tracker!r} on {report.benchmark}{other}; protocol {report.protocol}, {report.sequences} sequences "
        f"scored{unscored} ({report.file})"
    )


def _counted(timed: Timed) -> str:
    first = timed.speeds[0]
    return f"{timed.device}: {first.name} in {first.dtype}, {PROTOCOL['got10k_fps']}"
