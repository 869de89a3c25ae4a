"""``fate-gym render``."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fate_gym.lab.cli import main


def test_an_episode_as_gif(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "episode.gif"
    assert main(["render", "policy=heft", "--seconds", "2", "--fps", "5", "-o", str(file)]) == 0
    assert "under heft" in capsys.readouterr().out
    with Image.open(file) as film:
        assert 3 <= film.n_frames <= 11
        shown, pictures = [], set()
        for frame in range(film.n_frames):
            film.seek(frame)
            shown.append(film.info["duration"])
            pictures.add(film.convert("RGB").tobytes())
        assert len(pictures) == film.n_frames, "every frame shows something new"
        # The ticks of an episode, then its end.
        assert sum(shown[:-1]) == pytest.approx(2000, abs=400)
        assert shown[-1] == 2400


def test_an_episode_as_mp4(tmp_path: Path) -> None:
    pytest.importorskip("imageio_ffmpeg")
    file = tmp_path / "episode.mp4"
    assert main(["render", "--seconds", "1", "--fps", "4", "-o", str(file)]) == 0
    assert file.read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-o a.avi", "a.avi: cannot write a .avi. Remedy: use .gif or .mp4."),
        ("policy=heft,fate", "an animation shows one policy"),
        ("policy=", "no policy in 'policy='"),
        (
            "--problem 2",
            "suite 'smoke' has no problem 2. Remedy: give --problem a number from 0 to 1",
        ),
        ("suite=smok", "unknown suite 'smok'"),
    ],
)
def test_mistakes(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", *words.split()]) == 2
    assert f"error: {message}" in capsys.readouterr().err
