"""A sheet of the paper's for people: on a terminal, and in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich import box
from rich.table import Table

from .paper import OURS, Cell, Row, Sheet

LEGEND = 'An empty cell of ours: not measured. "-": not in the paper. Scores are in percent.'


def terminal(sheet: Sheet) -> Table:
    """As Rich prints it; ours is bold."""
    table = Table(title=sheet.title, title_justify="left", box=box.SIMPLE, padding=0, pad_edge=False)
    for label in sheet.labels:
        table.add_column(label, no_wrap=True)
    for column in _columns(sheet):
        table.add_column(column, justify="right", no_wrap=True)
    for group, rows in _groups(sheet):
        if group:
            table.add_section()
            table.add_row(f"[italic]{group}[/]")
        for row in rows:
            table.add_row(*row.labels, *(_marked(cell, "[bold]", "[/]") for cell in row.cells))
    return table


def markdown(sheet: Sheet) -> str:
    """A table with its title and notes; ours is bold."""
    headings = [*sheet.labels, *(column.replace("\n", " ") for column in _columns(sheet))]
    rule = ["---"] * len(sheet.labels) + ["--:"] * len(sheet.columns)
    lines = [headings, rule]
    for group, rows in _groups(sheet):
        if group:
            lines.append([f"*{group}*"] + [""] * (len(headings) - 1))
        lines += [[*row.labels, *(_marked(cell, "**", "**") for cell in row.cells)] for row in rows]
    piped = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join((f"## {sheet.title}", "", *piped, "", *(f"- {note}" for note in sheet.notes))) + "\n"


def _groups(sheet: Sheet) -> Iterator[tuple[str, Iterator[Row]]]:
    return groupby(sheet.rows, key=lambda row: row.group)


def _columns(sheet: Sheet) -> list[str]:
    """Headings, with whose the column is."""
    return [f"{column}\n{sheet.owner(i)}".rstrip() for i, column in enumerate(sheet.columns)]


def _marked(cell: Cell | None, before: str, after: str) -> str:
    text = str(cell or "")
    return f"{before}{text}{after}" if cell and cell.of == OURS and text else text
