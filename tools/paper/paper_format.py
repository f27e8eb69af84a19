"""Formats a table of the paper for a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from rich import box
from rich.table import Table

from .tables import OURS, Cell, PaperTable, Row

LEGEND = 'Empty cell of ours: not measured. "-": not in the paper. Scores are in percent.'


def terminal(table: PaperTable) -> Table:
    """A Rich table; our figures are bold."""
    shown = Table(title=table.title, title_justify="left", box=box.SIMPLE, padding=0, pad_edge=False)
    for label in table.labels:
        shown.add_column(label, no_wrap=True)
    for column in _columns(table):
        shown.add_column(column, justify="right", no_wrap=True)
    for group, rows in _groups(table):
        if group:
            shown.add_section()
            shown.add_row(f"[italic]{group}[/]")
        for row in rows:
            shown.add_row(*row.labels, *(_marked(cell, "[bold]", "[/]") for cell in row.cells))
    return shown


def markdown(table: PaperTable) -> str:
    """A Markdown table with its title and notes; our figures are bold."""
    headings = [*table.labels, *(column.replace("\n", " ") for column in _columns(table))]
    rule = ["---"] * len(table.labels) + ["--:"] * len(table.columns)
    lines = [headings, rule]
    for group, rows in _groups(table):
        if group:
            lines.append([f"*{group}*"] + [""] * (len(headings) - 1))
        lines += [[*row.labels, *(_marked(cell, "**", "**") for cell in row.cells)] for row in rows]
    piped = [f"| {' | '.join(cells)} |" for cells in lines]
    return "\n".join((f"## {table.title}", "", *piped, "", *(f"- {note}" for note in table.notes))) + "\n"


def _groups(table: PaperTable) -> Iterator[tuple[str, Iterator[Row]]]:
    return groupby(table.rows, key=lambda row: row.group)


def _columns(table: PaperTable) -> list[str]:
    """Column headings, with the owner of the column's figures."""
    return [f"{column}\n{table.owner(i)}".rstrip() for i, column in enumerate(table.columns)]


def _marked(cell: Cell | None, before: str, after: str) -> str:
    text = str(cell or "")
    return f"{before}{text}{after}" if cell and cell.of == OURS and text else text
