"""What evaluation servers take: the files of an archive, by benchmark."""

from __future__ import annotations

import dataclasses
import re


@dataclasses.dataclass(frozen=True)
class Submission:
    """The form of one server's archive. `{0}` stands for a sequence, `{1}` for a repetition, from 1."""

    split: str  # whose truth the server keeps
    boxes: str  # file of x,y,w,h, a line a frame
    times: str  # file of seconds, a line a frame, a column a repetition or one for all; empty if there is none
    repetitions: int  # at most
    wrapped: bool  # whether one folder around everything is taken, too
    sequences: int  # that the server wants
    numbered: str  # pattern of their names, where they have numbers from 1
    pattern: str  # of files, boxes or times: groups `name` and, where there may be some, `repetition` and `time`

    @property
    def depth(self) -> int:
        """Folders above a file of boxes."""
        return self.boxes.count("/")

    @property
    def names(self) -> list[str]:
        """Of all sequences, where they follow from their numbers; else empty."""
        return [self.numbered.format(i + 1) for i in range(self.sequences)] if self.numbered else []

    def place(self, file: str) -> tuple[str, int] | None:
        """The sequence and the repetition that a file has boxes of, repetition 0 for times; None for another file."""
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
