"""``fate-gym render``: animates an episode as GIF or MP4."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from fate_gym.errors import InputError
from fate_gym.lab.cli.options import PATH, overrides

if TYPE_CHECKING:
    from fate_gym.env import WorkflowSchedulingEnv
    from fate_gym.sim import Policy

Frame = tuple[Any, int]
"""An image (H, W, 3), and the number of ticks for which it is shown."""

_HOLD_S = 2.5
"""Seconds for which the last frame is shown."""
_COLOURS = 64


@click.command()
@overrides()
@click.option("--problem", default=0, show_default=True, help="Number of the suite's problem.")
@click.option(
    "-o", "--output", type=PATH, default=Path("episode.gif"), show_default=True,
    help="The file, .gif or .mp4.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.FloatRange(1, 600), default=8.0, show_default=True,
    help="How long the animation runs.",
)  # fmt: skip
@click.option(
    "--fps", type=click.IntRange(1, 60), default=8, show_default=True, help="Frames per second."
)
def render(overrides: Sequence[str], problem: int, output: Path, seconds: float, fps: int) -> None:
    """Animate an episode: who runs what on which GPU, as it is decided.

    OPTION is as in evaluate: suite=NAME (default smoke), policy=NAME (default fate), seed=N, ...
    """
    write = _writer(output)
    from fate_gym.env import WorkflowSchedulingEnv
    from fate_gym.lab.cli.words import policies_of
    from fate_gym.lab.describe.suite import compose_problem
    from fate_gym.lab.errors import unwritable
    from policies import make_policy

    words, names = policies_of(overrides, ("fate",))
    if len(names) > 1:
        raise InputError("an animation shows one policy", remedy="give one name in policy=NAME")
    chosen, seed = compose_problem(words, problem)
    policy = make_policy(names[0])
    env = WorkflowSchedulingEnv(chosen, render_mode="rgb_array", window=64)
    frames = list(episode_frames(env, policy, seed, round(seconds * fps)))
    frames[-1] = (frames[-1][0], round(_HOLD_S * fps))
    try:
        write(output, frames, fps)
    except OSError as error:
        raise unwritable(output, error, remedy="choose another place with --output") from None
    end = env.trace().makespan
    print(f"{chosen.id} under {names[0]}: {end:.1f} s, {len(frames)} frames")
    print(f"animation: {output} ({output.stat().st_size / 1e3:.0f} kB)")


def episode_frames(
    env: WorkflowSchedulingEnv, policy: Policy, seed: int, ticks: int
) -> Iterator[Frame]:
    """Yield images of an episode, at most one per tick of equal length; the last is its end."""
    from fate_gym.env import PolicyAdapter

    adapter = PolicyAdapter(policy)
    # The length is only known at the end, so the (deterministic) episode is played twice.
    tick = adapter.play(env, seed=seed).makespan / ticks
    env.reset(seed=seed)
    adapter.begin(env)
    shown = 0
    picture = env.render()
    while not env.ended:
        adapter.step(env)
        reached = int(env.time / tick)
        if reached > shown:
            yield picture, reached - shown
            shown = reached
            picture = env.render()
    yield env.render(), 1


def _writer(output: Path) -> Callable[[Path, Sequence[Frame], int], None]:
    """Return the function that writes this kind of file. Raises `InputError`."""
    suffix = output.suffix.lower()
    if suffix == ".gif":
        return _write_gif
    if suffix != ".mp4":
        raise InputError(
            f"cannot write a {suffix or 'file without suffix'}",
            source=output,
            remedy="use .gif or .mp4",
        )
    try:
        import imageio_ffmpeg  # noqa: F401
    except ImportError:
        raise InputError(
            "MP4 needs the package imageio-ffmpeg",
            source=output,
            remedy="pip install 'fate-gym[video]', or use .gif",
        ) from None
    return _write_mp4


def _write_gif(output: Path, frames: Sequence[Frame], fps: int) -> None:
    from PIL import Image

    # With one palette, only the differences between frames are stored.
    last = Image.fromarray(frames[-1][0])
    palette = last.quantize(_COLOURS, dither=Image.Dither.NONE)
    images = [
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE)
        for picture, _ in frames
    ]
    images[0].save(
        output,
        save_all=True,
        append_images=images[1:],
        duration=[round(1000 * shown / fps) for _, shown in frames],
        loop=0,
        optimize=True,
    )


def _write_mp4(output: Path, frames: Sequence[Frame], fps: int) -> None:
    import imageio_ffmpeg

    height, width = frames[0][0].shape[:2]
    writer = imageio_ffmpeg.write_frames(
        str(output), (width, height), fps=fps, codec="libx264", macro_block_size=2
    )
    writer.send(None)
    for picture, shown in frames:
        for _ in range(shown):
            writer.send(np.ascontiguousarray(picture))
    writer.close()
