"""Our own figures for a configuration: costs counted here, scores read from reports. No figure of the paper."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fermt.config import CONFIGS, ModelConfig, named_config
from fermt.flops import FlopCount, count_flops

# The paper's data sets, and their names in print, with which the title of a report begins.
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
    """The content of a report of `fermt eval`."""

    file: Path
    tracker: str
    benchmark: str  # its title
    protocol: str
    sequences: int  # with a score
    unscored: int  # without a result, or with one that cannot be scored
    scores: Mapping[str, float | None]  # in percent


@dataclasses.dataclass(frozen=True)
class Measured:
    """Our figures by configuration."""

    reports: Mapping[tuple[str, ModelConfig], Reported] = dataclasses.field(default_factory=dict)
    fps: Mapping[str, float] = dataclasses.field(default_factory=dict)  # by kind of device: "cpu", "gpu"

    def cost(self, config: ModelConfig) -> FlopCount:
        """Counts parameters and multiply-adds."""
        return count_flops(config)

    def fewer_pairs(self, config: ModelConfig, than: ModelConfig) -> float:
        """Percentage by which the attention of `config` computes fewer scores than that of `than`."""
        return 100 * (1 - count_flops(config).mean_score_pairs / count_flops(than).mean_score_pairs)

    def figure(self, column: str, config: ModelConfig) -> float | None:
        """A score in percent ("lasot.AUC") or frames per second ("fps.cpu"); None if it was not measured."""
        dataset, score = column.split(".", 1)
        if dataset == "fps":
            return self.fps.get(score) if config == CONFIGS["fermt"] else None
        report = self.reports.get((dataset, config))
        return report.scores.get(score) if report else None


def config_of(name: str) -> ModelConfig:
    """Returns the configuration of that name; the suffix `-no-dau` leaves out the Dual Attention Unit."""
    return named_config(name.removesuffix(NO_DAU), dau=not name.endswith(NO_DAU))


def read_results(sources: Iterable[str]) -> dict[tuple[str, ModelConfig], Reported]:
    """Reads reports, by data set and configuration.

    Args:
        sources: each DATASET=FILE or DATASET.CONFIG=FILE (without CONFIG, "fermt"), or a folder of .json files named
            in this way: got10k.json, got10k.a2a4-no-dau.json.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: another form, data set or configuration, two reports for one key, or a file that is no report.
    """
    found: dict[tuple[str, ModelConfig], Reported] = {}
    for key, file in _files(sources):
        dataset, _, name = key.partition(".")
        if dataset not in DATASETS:
            raise ValueError(f"results of {key!r}: expected {KEY}, the data set one of {', '.join(DATASETS)}")
        config = config_of(name or "fermt")
        if (dataset, config) in found:
            raise ValueError(f"two reports of {key!r}: {found[dataset, config].file} and {file}")
        found[dataset, config] = read_report(file, dataset)
    return found


def _files(sources: Iterable[str]) -> Iterable[tuple[str, Path]]:
    for text in sources:
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
    """Reads the report in a file that `fermt eval --json` wrote.

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
