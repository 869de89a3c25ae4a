"""A few mutants of a run directory; `make fuzz` runs many."""

from __future__ import annotations

import pytest

from fate_gym.lab.report.compute import compute_report
from tests.fuzz.run_directories import Game


@pytest.fixture(scope="module")
def game(tmp_path_factory: pytest.TempPathFactory) -> Game:
    return Game(tmp_path_factory.mktemp("game"))


def test_mutants_of_a_run_directory_give_a_result_or_one_error(game: Game) -> None:
    ends = [game.play(number) for number in range(5_000, 5_016)]
    assert [end for end in ends if "WRONG" in end] == []
    # Most are found, and mended by a rerun.
    assert sum("1 run again" in end for end in ends) > 8


def test_the_whole_one_is_left_alone(game: Game) -> None:
    root = game.whole / "default"
    assert [job.state for job in compute_report(root).sweep.jobs] == ["ok", "ok"]
