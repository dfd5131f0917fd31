"""Accuracies printed in papers, to stand beside ours. None of them was measured here, nor on our models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from compressors.errors import UnknownNameError

VIDEO_MME = ("VideoMME", "short", "medium", "long")
AVERAGE = "average, %"
# What averages are relative to: LLaVA-OneVision-7B with all tokens (Table 2).
UNCOMPRESSED = {
    "MVBench": 56.9,
    "LongVideoBench": 56.4,
    "MLVU": 63.0,
    "VideoMME": 58.6,
    "short": 70.3,
    "medium": 56.6,
    "long": 48.8,
}


@dataclass(frozen=True)
class Published:
    """A table of a paper.

    Attributes:
        title: what it shows, of which model.
        source: paper and table.
        columns: of `rows`, after the row's name; accuracies in %, the last an average relative to `UNCOMPRESSED`.
        rows: as printed.
        note: what a reader must know.
    """

    title: str
    source: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float, ...], ...]
    note: str = ""

    def table(self) -> pd.DataFrame:
        """As text, digits as printed, and both averages as they follow from the columns: VideoMME's parts are columns
        of their own in the papers' averages, so VideoMME counts four times there; then each benchmark once."""
        printed = pd.DataFrame([[str(cell) for cell in row] for row in self.rows], columns=["", *self.columns])
        printed = printed.rename(columns={AVERAGE: f"{AVERAGE} (printed)"})
        once = [name for name in self.columns[:-1] if name not in VIDEO_MME[1:]]
        printed[f"{AVERAGE} (of the columns)"] = [f"{self.average(row, self.columns[:-1]):.1f}" for row in self.rows]
        printed[f"{AVERAGE} (of the benchmarks)"] = [f"{self.average(row, once):.1f}" for row in self.rows]
        return printed

    def average(self, row: Sequence[str | float], names: Sequence[str]) -> float:
        """Mean of a row's columns of these names, each in % of the uncompressed model's."""
        shares = dict(zip(self.columns, row[1:], strict=True))
        return fmean(100 * float(shares[name]) / UNCOMPRESSED[name] for name in names)


PAPER = "VidCom2, arXiv 2505.14454"
MODEL = "LLaVA-OneVision-7B, 32 frames"
BESIDE = "Some printed averages do not follow from the columns; recomputed ones stand beside them."

TABLES = {
    "vidcom2_table2": Published(
        f"Methods on {MODEL}",
        f"{PAPER}, Table 2",
        ("MVBench", "LongVideoBench", "MLVU", *VIDEO_MME, AVERAGE),
        (
            ("uncompressed", 56.9, 56.4, 63.0, 58.6, 70.3, 56.6, 48.8, 100.0),
            ("DyCoke, 30 %", 56.6, 54.7, 60.3, 56.1, 67.1, 54.6, 46.6, 96.5),
            ("Random, 25 %", 54.2, 52.7, 59.7, 55.6, 65.4, 53.0, 48.3, 94.8),
            ("FastV, 25 %", 55.5, 53.3, 59.6, 55.3, 65.0, 53.8, 47.0, 94.9),
            ("PDrop, 25 %", 55.3, 51.3, 57.1, 55.5, 64.7, 53.1, 48.7, 94.1),
            ("SparseVLM, 25 %", 56.4, 53.9, 60.7, 57.3, 68.4, 55.2, 48.1, 97.5),
            ("DyCoke, 25 %", 49.5, 48.1, 55.8, 51.0, 61.1, 48.6, 43.2, 87.0),
            ("VidCom2, 25 %", 57.2, 54.9, 62.5, 58.6, 69.8, 56.4, 49.4, 99.6),
            ("FastV, 15 %", 51.6, 48.3, 55.0, 48.1, 51.4, 49.4, 43.3, 85.0),
            ("PDrop, 15 %", 53.2, 47.6, 54.7, 50.1, 58.7, 48.7, 45.0, 87.4),
            ("SparseVLM, 15 %", 52.9, 49.7, 57.4, 53.4, 61.0, 52.1, 47.0, 91.2),
            ("VidCom2, 15 %", 54.3, 52.0, 58.9, 56.2, 65.8, 54.8, 48.1, 95.1),
        ),
    ),
    "vidcom2_table5": Published(
        f"Token scores, 25 % kept, {MODEL}",
        f"{PAPER}, Table 5",
        ("MLVU", *VIDEO_MME, AVERAGE),
        (
            ("uncompressed", 63.0, 58.6, 70.3, 56.6, 48.8, 100.0),
            ("similar to the frame's mean", 59.5, 54.0, 62.2, 54.2, 45.3, 94.1),
            ("unlike the frame's mean", 61.9, 57.9, 68.8, 56.9, 48.1, 98.8),
            ("similar to the video's mean", 58.9, 53.3, 61.7, 52.1, 46.1, 93.2),
            ("unlike the video's mean", 61.4, 58.3, 69.3, 56.1, 49.3, 99.3),
            ("unlike either, summed", 62.1, 58.5, 69.6, 56.3, 49.3, 99.7),
        ),
        BESIDE,
    ),
    "vidcom2_table6": Published(
        f"Budgets of frames, 25 % kept, {MODEL}",
        f"{PAPER}, Table 6",
        ("MLVU", *VIDEO_MME, AVERAGE),
        (
            ("uniform", 61.9, 57.9, 68.8, 56.9, 48.1, 98.8),
            ("by the most unique token", 62.1, 58.1, 68.4, 56.7, 49.3, 99.4),
            ("by mean uniqueness (chosen)", 62.3, 58.2, 69.1, 55.9, 49.6, 99.6),
        ),
        f"{BESIDE} The uniform row is digit for digit that of the frame's score alone in Table 5: budgets were "
        "compared on that score, not on the full method's.",
    ),
    "vidcom2_table7": Published(
        f"Frames over which the video's mean is taken, 25 % kept, {MODEL}",
        f"{PAPER}, Table 7",
        ("MVBench", *VIDEO_MME, AVERAGE),
        (
            ("4", 56.8, 57.9, 69.6, 55.6, 48.7, 99.1),
            ("8", 56.8, 58.3, 69.8, 56.4, 48.6, 99.6),
            ("16", 57.2, 58.5, 70.0, 56.7, 48.9, 100.1),
            ("32 (all)", 57.2, 58.6, 69.8, 56.4, 49.4, 100.1),
        ),
    ),
    "vidcom2_table8": Published(
        f"Weights of the two token scores, 25 % kept, {MODEL}",
        f"{PAPER}, Table 8",
        ("MVBench", *VIDEO_MME, AVERAGE),
        (
            ("frame only", 56.8, 57.9, 68.8, 56.9, 48.1, 98.8),
            ("video only", 56.8, 58.3, 69.3, 56.1, 49.3, 99.3),
            ("1 : 1", 57.2, 58.6, 69.8, 56.4, 49.4, 100.3),
            ("frame + 2 · video", 56.1, 58.4, 69.7, 56.4, 49.0, 99.5),
            ("2 · frame + video", 56.9, 58.6, 69.7, 56.8, 49.3, 100.0),
        ),
        BESIDE,
    ),
}


def published(names: Iterable[str]) -> list[Published]:
    """Tables by name.

    Raises:
        UnknownNameError: there is none of that name.
    """
    for name in (names := list(names)):
        if name not in TABLES:
            raise UnknownNameError("published table", name, TABLES)
    return [TABLES[name] for name in names]
