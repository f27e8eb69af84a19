"""What is known here of a configuration: counted, and measured where there are results. No figure of the paper's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..config import CONFIGS, ModelConfig, named_config
from ..flops import FlopCount, count_flops

# Of the paper's data sets: how they are printed, and how a report's title on them begins.
DATASETS = {
    "got10k": "GOT-10k",
    "trackingnet": "TrackingNet",
    "lasot": "LaSOT",
    "lasot_ext": "LaSOT_ext",
    "nfs": "NFS",
    "uav123": "UAV123",
}
NO_DAU = "-no-dau"
KEY = f"DATASET or DATASET.CONFIG, such as got10k or got10k.a2a4{NO_DAU}"


class Reported(NamedTuple):
    """What a report of `fermt eval` says."""

    file: Path
    tracker: str
    benchmark: str  # its title
    protocol: str
    sequences: int  # scored
    unscored: int  # whose result is missing, or cannot be scored
    scores: Mapping[str, float | None]  # in percent


@dataclasses.dataclass(frozen=True)
class Ours:
    """Figures of this package, by configuration."""

    reports: Mapping[tuple[str, ModelConfig], Reported] = dataclasses.field(default_factory=dict)
    fps: Mapping[str, float] = dataclasses.field(default_factory=dict)  # by kind of device: "cpu", "gpu"

    def cost(self, config: ModelConfig) -> FlopCount:
        """Counted now."""
        return count_flops(config)

    def fewer_pairs(self, config: ModelConfig, than: ModelConfig) -> float:
        """By how many percent the attention of `config` has fewer scores than that of another."""
        return 100 * (1 - count_flops(config).mean_score_pairs / count_flops(than).mean_score_pairs)

    def figure(self, column: str, config: ModelConfig) -> float | None:
        """A score in percent ("lasot.AUC"), or frames a second ("fps.cpu"); None if that was not measured."""
        dataset, score = column.split(".", 1)
        if dataset == "fps":
            return self.fps.get(score) if config == CONFIGS["fermt"] else None
        report = self.reports.get((dataset, config))
        return report.scores.get(score) if report else None


def config_of(name: str) -> ModelConfig:
    """The configuration of that name; `-no-dau` at its end leaves out the Dual Attention Unit."""
    return named_config(name.removesuffix(NO_DAU), dau=not name.endswith(NO_DAU))


def read_results(given: Iterable[str]) -> dict[tuple[str, ModelConfig], Reported]:
    """Reports, by data set and configuration.

    Args:
        given: each DATASET=FILE or DATASET.CONFIG=FILE (without CONFIG, "fermt"), or a folder whose .json files are all
            called so: got10k.json, got10k.a2a4-no-dau.json.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: another form, data set or configuration, two reports of one thing, or a file that is no report.
    """
    found: dict[tuple[str, ModelConfig], Reported] = {}
    for key, file in _files(given):
        dataset, _, name = key.partition(".")
        if dataset not in DATASETS:
            raise ValueError(f"results of {key!r}: expected {KEY}, the data set one of {', '.join(DATASETS)}")
        config = config_of(name or "fermt")
        if (dataset, config) in found:
            raise ValueError(f"two reports of {key!r}: {found[dataset, config].file} and {file}")
        found[dataset, config] = read_report(file, dataset)
    return found


def _files(given: Iterable[str]) -> Iterable[tuple[str, Path]]:
    for text in given:
        key, equals, name = text.partition("=")
        if equals:
            yield key, Path(name).expanduser()
            continue
        folder = Path(text).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"expected KEY=FILE, KEY being {KEY}, or a folder of reports; got {text!r}")
        files = sorted(folder.glob("*.json"))
        if not files:
            raise FileNotFoundError(f"folder {text!r} has no reports: .json files named {KEY}")
        yield from ((file.stem, file) for file in files)


def read_report(file: Path, dataset: str) -> Reported:
    """The one report in a file that `fermt eval --json` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not such a file, has several reports, or one on another data set.
    """
    expected = f"{str(file)!r}: expected a report on {DATASETS[dataset]} as `fermt eval --json` writes it"
    try:
        values: Any = json.loads(file.read_text(encoding="utf-8"))
        reports = values.get("reports", [values])
        if len(reports) != 1:
            raise ValueError(f"{expected}, of one tracker; got {len(reports)}")
        (report,) = reports
        title, unit = str(report["benchmark"]), float(report["unit"])
        scores = {name: _percent(score["value"], unit) for name, score in report["scores"].items()}
        unscored = len(report["missing"]) + len(report["failed"])
        found = Reported(
            file, str(report["tracker"]), title, str(report["protocol"]), len(report["sequences"]), unscored, scores
        )
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{expected}; got {type(error).__name__}: {error}") from error
    if title.split(",")[0].split(" ")[0] != DATASETS[dataset]:
        raise ValueError(f"{expected}; got one on {title!r}")
    return found


def _percent(value: float | None, unit: float) -> float | None:
    return None if value is None else 100 * value / unit
