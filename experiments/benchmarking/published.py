"""Times printed in papers, to stand beside ours. None of them was measured here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from compressors.errors import UnknownNameError


@dataclass(frozen=True)
class PublishedTimes:
    """One row of a table.

    Attributes:
        method: as the paper calls it.
        retention: share of the visual tokens kept; None for a row that is shown at any.
        before, after: times without and with the method, by the table's columns.
        peak: GB before and after.
    """

    method: str
    retention: float | None
    before: tuple[float, ...]
    after: tuple[float, ...]
    peak: tuple[float, float] | None = None


@dataclass(frozen=True)
class PublishedTable:
    """A table of times.

    Attributes:
        source, setting: where it stands, and what was measured.
        unit: of its times.
        columns: key -> (heading, the stage of ours to stand beside it).
        rows: its rows.
    """

    source: str
    setting: str
    unit: str
    columns: Mapping[str, tuple[str, str]]
    rows: tuple[PublishedTimes, ...]


def _vidcom2(method: str, retention: float, llm: float, model: float, peak: float) -> PublishedTimes:
    return PublishedTimes(method, retention, (618.0, 1008.4), (llm, model), (17.7, peak))


def _rekv(method: str, retention: float, encode: float, prefill: float) -> PublishedTimes:
    return PublishedTimes(f"ReKV + {method}", retention, (103.7, 482.4), (encode, prefill))


TABLES = {
    "vidcom2_table4": PublishedTable(
        "VidCom2, arXiv 2505.14454, Table 4",
        "LLaVA-OneVision-7B, 32 frames, MVBench, batch 1, A100-80GB, FlashAttention-2 where the method allows",
        "s",
        {"llm": ("language model", "llm"), "model": ("encoder and language model", "generate")},
        (
            _vidcom2("Random", 0.25, 178.2, 566.0, 16.0),
            _vidcom2("FastV", 0.25, 260.9, 648.6, 24.7),
            _vidcom2("PDrop", 0.25, 205.6, 592.6, 24.5),
            _vidcom2("SparseVLM", 0.25, 410.6, 807.7, 27.1),
            _vidcom2("DyCoke", 0.25, 205.2, 598.0, 16.1),
            _vidcom2("VidCom2", 0.25, 180.7, 574.7, 16.0),
            _vidcom2("Random", 0.15, 130.3, 532.5, 15.8),
            _vidcom2("FastV", 0.15, 172.4, 599.3, 24.6),
            _vidcom2("PDrop", 0.15, 165.3, 552.6, 24.5),
            _vidcom2("SparseVLM", 0.15, 370.4, 764.8, 27.1),
            _vidcom2("VidCom2", 0.15, 129.2, 533.0, 15.8),
        ),
    ),
    "stc_table1": PublishedTable(
        "STC, arXiv 2512.00891, Table 1",
        "16 frames of OVO-Bench; ReKV is LLaVA-OneVision-7B, Cacher + Pruner has interval 2, three quarters reused and "
        "30 % of the tokens kept; the other systems have the cacher alone",
        "ms",
        {"encode": ("vision encoder", "encode"), "prefill": ("prefill", "prefill")},
        (
            _rekv("ToMe", 0.25, 70.5, 257.8),
            _rekv("VisionZip", 0.25, 103.7, 258.3),
            _rekv("VidCom2", 0.25, 103.7, 259.1),
            _rekv("STC-Pruner", 0.25, 103.7, 259.2),
            _rekv("STC-Cacher and STC-Pruner", 0.3, 78.3, 263.7),
            PublishedTimes("Dispider + STC-Cacher", None, (26.4, 115.9), (18.9, 115.9)),
            PublishedTimes("LiveCC + STC-Cacher", None, (181.2, 818.4), (126.8, 818.4)),
            PublishedTimes("StreamForest + STC-Cacher", None, (103.7, 366.2), (67.7, 366.2)),
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
    found = [
        {
            "method": row.method,
            **{
                key: {"before": before, "after": after, "speed_up": before / after}
                for key, before, after in zip(table.columns, row.before, row.after, strict=True)
            },
            **({} if row.peak is None else {"peak_gb": {"before": row.peak[0], "after": row.peak[1]}}),
        }
        for row in table.rows
        if row.retention is None or abs(row.retention - retention) < 0.005
    ]
    columns = {key: {"heading": heading, "stage": stage} for key, (heading, stage) in table.columns.items()}
    told = {"source": table.source, "setting": table.setting, "unit": table.unit, "columns": columns}
    return {**told, "rows": found} if found else None
