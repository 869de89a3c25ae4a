"""Finding jobs on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from fate_gym.errors import InputError
from fate_gym.lab.jobs.directory import last_line
from fate_gym.lab.jobs.find import find_jobs


@pytest.mark.parametrize("name", ["missing", "empty", "foreign"])
def test_directories_without_jobs_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign" / "a" / "b" / "c").mkdir(parents=True)
    with pytest.raises(InputError) as error:
        find_jobs(tmp_path / name)
    assert error.value.source == str(tmp_path / name)
    assert error.value.remedy


def test_last_line() -> None:
    assert last_line("Traceback\n  x\nValueError: boom\n\n") == "ValueError: boom"
    assert last_line("") == ""
