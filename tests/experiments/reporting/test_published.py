"""What papers print, checked against itself."""

from __future__ import annotations

import pytest

from compressors.errors import UnknownNameError
from experiments.reporting.published import AVERAGE, BESIDE, TABLES, UNCOMPRESSED, VIDEO_MME, published


@pytest.mark.parametrize("name", TABLES)
def test_tables_are_whole(name: str) -> None:
    table = TABLES[name]
    assert table.columns[-1] == AVERAGE
    assert set(table.columns[:-1]) <= set(UNCOMPRESSED)
    assert table.source
    for row in table.rows:
        assert len(row) == len(table.columns) + 1
        by_name = dict(zip(table.columns, row[1:], strict=True))
        # All of VideoMME is the mean of its three parts, 900 questions each (one printed row is 0.7 off).
        parts = [float(by_name[part]) for part in VIDEO_MME[1:]]
        assert float(by_name["VideoMME"]) == pytest.approx(sum(parts) / 3, abs=0.75)


@pytest.mark.parametrize("name", TABLES)
def test_printed_averages_follow_from_the_columns_where_nothing_else_is_said(name: str) -> None:
    table = TABLES[name]
    off = [abs(table.average(row, table.columns[:-1]) - float(row[-1])) for row in table.rows]
    assert (max(off) > 0.1) == (BESIDE in table.note)
    assert max(off) < 1.5


def test_uncompressed_rows_are_what_averages_are_relative_to() -> None:
    for table in (TABLES["vidcom2_table2"], TABLES["vidcom2_table5"]):
        assert dict(zip(table.columns[:-1], table.rows[0][1:-1], strict=True)).items() <= UNCOMPRESSED.items()


def test_both_averages_stand_beside_the_printed_one() -> None:
    row = TABLES["vidcom2_table2"].table().set_index("").loc["VidCom2, 25 %"]
    assert row["VideoMME"] == "58.6"
    assert list(row)[-3:] == ["99.6", "99.6", "99.3"]


def test_an_unknown_table() -> None:
    assert published(["vidcom2_table6"]) == [TABLES["vidcom2_table6"]]
    with pytest.raises(UnknownNameError, match=r"unknown published table 'vidcom2_tabel6'. Did you mean"):
        published(["vidcom2_tabel6"])
