"""The forms of archives that evaluation servers accept, by benchmark."""

from __future__ import annotations

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Submission:
    """The form of a server's archive. `{0}` stands for a sequence, `{1}` for a repetition, from 1."""

    split: str  # the split whose ground truth the server keeps
    boxes: str  # name of a file with x,y,w,h in a line for each frame
    times: str  # name of a file with a line of seconds for each frame, a column for each repetition; "" if none
    repetitions: int  # most repetitions of a sequence
    wrapped: bool  # whether a folder around everything is accepted
    sequences: int  # number of sequences required
    numbered: str  # pattern of the sequences' names if they are numbered from 1, else ""
    pattern: str  # regular expression of files: groups `name` and, if there are any, `repetition` and `time`

    @property
    def depth(self) -> int:
        """The number of folders above a file of boxes."""
        return self.boxes.count("/")

    @property
    def names(self) -> list[str]:
        """The names of all sequences if they are numbered, else empty."""
        return [self.numbered.format(i + 1) for i in range(self.sequences)] if self.numbered else []

    def place(self, file: str) -> tuple[str, int] | None:
        """Returns the sequence and the repetition of a file, repetition 0 for times; None for any other file."""
        match = re.fullmatch(self.pattern, file)
        if match is None:
            return None
        groups = match.groupdict()
        return groups["name"], 0 if groups.get("time") else int(groups.get("repetition") or 1)


SUBMISSIONS = {
    "got10k": Submission(
        split="test",
        boxes="{0}/{0}_{1:03d}.txt",
        times="{0}/{0}_time.txt",
        repetitions=3,
        wrapped=True,
        sequences=180,
        numbered="GOT-10k_Test_{:06d}",
        pattern=r"(?P<name>[^/]+)/(?P=name)_(?:(?!000)(?P<repetition>\d{3})|(?P<time>time))\.txt",
    ),
    "trackingnet": Submission(
        split="test",
        boxes="{0}.txt",
        times="",
        repetitions=1,
        wrapped=False,
        sequences=511,
        numbered="",
        pattern=r"(?P<name>[^/]+)\.txt",
    ),
}
