"""Copies a part of a pool of free images that is small enough to be sent to another machine, and trained on there.

Boxes and videos are copied whole, because they are few. Of photographs and cut-outs every n-th file is taken, in the
order of their paths, so that every folder keeps its share and validation its images.

    python -m tools.pool_core POOL CORE --megabytes 50
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from fermt import signals

WHOLE, SAMPLED = ("boxes", "video"), ("photos", "cutouts")
MEGABYTE = 1e6


def files_of(pool: Path, folders: tuple[str, ...]) -> list[Path]:
    """Lists the files in some folders of a pool, in the order of their paths; hidden ones are left out."""
    return [
        path
        for name in folders
        for path in sorted((pool / name).rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    ]


def largest_core(pool: Path, size: float) -> list[Path]:
    """Lists the files of the largest core of at most `size` bytes.

    Raises:
        ValueError: boxes and videos alone are larger, or there is nothing to sample from.
    """
    whole, sampled = files_of(pool, WHOLE), files_of(pool, SAMPLED)
    left = size - sum(path.stat().st_size for path in whole)
    if left <= 0:
        raise ValueError(f"boxes and videos alone take {(size - left) / MEGABYTE:.1f} MB; got {size / MEGABYTE:g} MB")
    if not sampled:
        raise ValueError(f"{str(pool)!r} has no files in {' and '.join(SAMPLED)}; is it a pool?")
    sizes = [path.stat().st_size for path in sampled]
    share = min(1.0, left / sum(sizes))
    while True:
        taken = [i for i in range(len(sampled)) if int((i + 1) * share) > int(i * share)]
        if sum(sizes[i] for i in taken) <= left:
            return whole + [sampled[i] for i in taken]
        share *= 0.99  # the files that were hit are larger than the others


def copy(files: list[Path], pool: Path, core: Path) -> None:
    """Copies files of a pool to the same places in `core`, a new folder that appears when it is complete."""
    core.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{core.name}.", dir=core.parent) as aside:
        made = Path(aside) / "core"
        for path in files:
            to = made / path.relative_to(pool)
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)
        made.rename(core)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pool", type=Path, help="the whole pool; it is only read")
    parser.add_argument("core", type=Path, help="the folder to make; it must not exist")
    parser.add_argument("--megabytes", type=float, default=50.0, help="largest size of the core (50)")
    options = parser.parse_args()
    if options.core.exists():
        parser.error(f"{str(options.core)!r} exists; name a new folder")
    try:
        files = largest_core(options.pool, options.megabytes * MEGABYTE)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    total = sum(path.stat().st_size for path in files)
    print(f"copying {len(files)} files, {total / MEGABYTE:.1f} MB", flush=True)
    try:
        with signals.raising():
            copy(files, options.pool, options.core)
    except KeyboardInterrupt as error:
        return signals.exit_status(error)
    except OSError as error:  # a full disk ...
        parser.error(str(error))
    print(f"{options.core}: fermt train --config free-images --dataset pool={options.core} --out full --minutes 30")
    return 0


if __name__ == "__main__":
    sys.exit(main())
