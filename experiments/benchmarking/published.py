"""Times printed in papers, to stand beside ours. None of them was measured here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from compressors.errors import UnknownNameError


@dataclass(frozen=True)
class PublishedTimes:
    """One row of a table: seconds for one GPU's share of the questions, and the peak in GB.

    Attributes:
        method: as the paper calls it.
        retention: share of the visual tokens kept.
        llm: of the language model.
        model: of the encoder and the language model.
        peak: GB.
    """

    method: str
    retention: float
    llm: float
    model: float
    peak: float


@dataclass(frozen=True)
class PublishedTable:
    """A table of times; the first row is the uncompressed model."""

    source: str
    setting: str
    rows: tuple[PublishedTimes, ...]


TABLES = {
    "vidcom2_table4": PublishedTable(
        "VidCom2, arXiv 2505.14454, Table 4",
        "LLaVA-OneVision-7B, 32 frames, MVBench, batch 1, A100-80GB, FlashAttention-2 where the method allows",
        (
            PublishedTimes("uncompressed", 1.0, 618.0, 1008.4, 17.7),
            PublishedTimes("Random", 0.25, 178.2, 566.0, 16.0),
            PublishedTimes("FastV", 0.25, 260.9, 648.6, 24.7),
            PublishedTimes("PDrop", 0.25, 205.6, 592.6, 24.5),
            PublishedTimes("SparseVLM", 0.25, 410.6, 807.7, 27.1),
            PublishedTimes("DyCoke", 0.25, 205.2, 598.0, 16.1),
            PublishedTimes("VidCom2", 0.25, 180.7, 574.7, 16.0),
            PublishedTimes("Random", 0.15, 130.3, 532.5, 15.8),
            PublishedTimes("FastV", 0.15, 172.4, 599.3, 24.6),
            PublishedTimes("PDrop", 0.15, 165.3, 552.6, 24.5),
            PublishedTimes("SparseVLM", 0.15, 370.4, 764.8, 27.1),
            PublishedTimes("VidCom2", 0.15, 129.2, 533.0, 15.8),
        ),
    ),
}


def published_rows(name: str | None, retention: float) -> dict[str, Any] | None:
    """A table's speed-ups at a retention; None where no table is asked for or it has no such row.

    Raises:
        UnknownNameError: there is no such table.
    """
    if name is None:
        return None
    if name not in TABLES:
        raise UnknownNameError("published table of times", name, TABLES)
    table = TABLES[name]
    whole, *rows = table.rows
    found = [
        {
            "method": row.method,
            "llm": {"before": whole.llm, "after": row.llm, "speed_up": whole.llm / row.llm},
            "model": {"before": whole.model, "after": row.model, "speed_up": whole.model / row.model},
            "peak_gb": {"before": whole.peak, "after": row.peak},
        }
        for row in rows
        if abs(row.retention - retention) < 0.005
    ]
    return {"source": table.source, "setting": table.setting, "rows": found} if found else None
