"""Parameters, multiply-adds and score pairs of every configuration, from closed forms and as torch counts them."""

from __future__ import annotations

import json
from functools import cache
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

import fermt
from fermt.config import named_config
from fermt.flops import FlopCount, count_flops

from .harness import Out, append, facts, run_command, start_progress, table

PARTS = ("linear", "head", "attention", "patches", "dau")
FULL, MIXED = "a3", "a2"  # what Eq. 7 compares with
MODEL_SECONDS = 0.6  # of building a model and running it under torch's counter


@cache
def counted_macs(name: str, dau: bool) -> int:
    """MACs as torch.utils.flop_counter sees the built model, with the formulas that our ops register."""
    model = fermt.build_model(name, dau=dau).eval()
    images = (torch.zeros(1, 3, size, size) for size in (model.config.template_size, model.config.search_size))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(*images)
    return counter.get_total_flops() // 2


def record(name: str, dau: bool) -> dict[str, Any]:
    """Everything that is printed about one configuration."""
    config = named_config(name, dau=dau)
    count = count_flops(config)
    pairs = {other: count_flops(other).mean_score_pairs for other in (FULL, MIXED)}
    return {
        "config": name,
        "dau": dau,
        "parameters": count.parameters,
        "position_parameters": count.position_parameters,
        "macs_without_attention": count.macs_without_attention,
        "macs": count.macs,
        "macs_torch_flop_counter": counted_macs(name, dau),
        "parts": {part: getattr(count, part) for part in PARTS},
        "mean_score_pairs": count.mean_score_pairs,
        "fewer_score_pairs_than_a3": 1 - count.mean_score_pairs / pairs[FULL],
        "fewer_score_pairs_than_a2": 1 - count.mean_score_pairs / pairs[MIXED],
        "layers": [layer._asdict() for layer in count.layers],
    }


def _giga(value: int, digits: int = 3) -> str:
    return f"{value / 1e9:.{digits}f} G"


def overview(records: list[dict[str, Any]]) -> Table:
    headings = ("config", "para-\nmeters", "MACs less\nattention", "MACs", "as torch\ncounts", "pairs a\nlayer")
    made = table(
        "One template and one search region. 1 MAC = 1 multiply + 1 add.",
        (*headings, "fewer\nthan A3", "fewer\nthan A2"),
    )
    for row in records:
        made.add_row(
            row["config"] + ("" if row["dau"] else ", no DAU"),
            f"{row['parameters'] / 1e6:.3f} M",
            _giga(row["macs_without_attention"]),
            _giga(row["macs"]),
            _giga(row["macs_torch_flop_counter"]),
            f"{row['mean_score_pairs']:,.0f}",
            f"{row['fewer_score_pairs_than_a3']:.1%}",
            f"{row['fewer_score_pairs_than_a2']:.1%}",
        )
    return made


def detail(name: str, count: FlopCount) -> Table:
    made = table(f"Where the MACs of '{name}' are", ("part or layer", "MACs", "of which attention", "score pairs"))
    for part in PARTS:
        made.add_row(part, _giga(getattr(count, part), 4), "", "")
    made.add_section()
    for i, layer in enumerate(count.layers):
        made.add_row(
            f"layer {i}, {layer.pattern}",
            _giga(layer.linear + layer.attention, 4),
            _giga(layer.attention, 4),
            f"{layer.score_pairs:,}",
        )
    return made


def main(
    config: Annotated[str, typer.Option(help="Configuration whose parts and layers are listed.")] = "fermt",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of the tables.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Only the listed configuration.")] = False,
    out: Out = None,
) -> None:
    """Count parameters, multiply-adds (MACs) and attention score pairs of every FERMT configuration.

    "MACs less attention" leaves out the two products of attention, as counters with module hooks and the paper do. "As
    torch counts" is torch.utils.flop_counter on the model, with the formulas that our ops register. Pairs are query-key
    pairs of one head, the mean over layers; "fewer" compares them as Eq. 7 of the paper does. Parameters do not include
    the position tables (61 440). Takes ten seconds.

    Example: python -m benchmarks.flops --config fermt-corner
    """
    todo = [(name, dau) for name in fermt.CONFIGS for dau in ((True, False) if name == "fermt" else (True,))]
    todo = [(name, dau) for name, dau in todo if not quick or name == config]
    progress = start_progress("FLOPs of every configuration", len(todo), len(todo) * MODEL_SECONDS)
    records = []
    for name, dau in todo:
        records.append(record(name, dau))
        progress.step(f"{name}{'' if dau else ', no DAU'}: {_giga(records[-1]['macs'])}")
    append(out, ({"benchmark": "flops", **each} for each in records), facts())
    if as_json:
        print(json.dumps(records, indent=1))
        return
    console = Console()
    console.print(overview(records))
    console.print(detail(config, count_flops(config)))


if __name__ == "__main__":
    run_command(main)
