"""Files are written completely or not at all."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from fate_gym.lab.files import write_table


def test_rows_may_lack_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", [{"a": 1}, {"a": 2, "b": 0.5}])
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": 0.5}]
