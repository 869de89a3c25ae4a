"""Files on disk: whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from fate_gym.lab.files import write_table, write_text


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def broken(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
    assert path.read_text() == "old"


def test_rows_may_lack_columns(tmp_path: Path) -> None:
    write_table(tmp_path / "t.parquet", [{"a": 1}, {"a": 2, "b": 0.5}])
    table = pq.read_table(tmp_path / "t.parquet")
    assert table.to_pylist() == [{"a": 1, "b": None}, {"a": 2, "b": 0.5}]
