"""Verbs for the user's own devices: measure them, execute schedules on them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from fate_gym.lab.cli.options import PATH


@click.command()
@click.option("--device", default="cuda:0", show_default=True, help="cpu or cuda:NUMBER.")
@click.option("--minutes", type=float, default=5.0, show_default=True, help="To measure for.")
@click.option(
    "--model", "models", multiple=True, metavar="MODEL",
    help="Of the catalogue, may be repeated; constants are fitted on the first, the passes of "
    "others test them. Default: Llama-3.1-8B and Qwen2.5-7B.",
)  # fmt: skip
@click.option(
    "--scale", type=float,
    help="Divide layers, widths and vocabulary by it. Default: 8 on a CPU, as little as fits on a "
    "GPU.",
)  # fmt: skip
@click.option("--name", help="Of the GPU in the file. Default: from the device's name.")
@click.option(
    "--like", metavar="GPU",
    help="GPU of the catalogue with the same data sheet: peaks, links, watts and price. Default: "
    "the peaks are the best rates seen.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=PATH, default=Path("gpu.yaml"), show_default=True,
    help="The file; a table as .csv and a picture as .png go beside it.",
)  # fmt: skip
def calibrate(models: tuple[str, ...], **options: Any) -> None:
    """Measure the cost model's constants on your own GPU, or CPU."""
    from fate_gym.lab.calibrate.app import calibrate as measured

    measured(models=models or None, **options)


@click.command()
@click.argument("file", type=PATH)
@click.option("--device", default="cuda:0", show_default=True, help="cpu or cuda:NUMBER.")
@click.option(
    "--of", metavar="DEVICE", help="Whose shards to execute, where the trace has several."
)
@click.option(
    "--gpu", metavar="FILE.yaml#NAME",
    help="Compare with the times of this GPU instead of those of the trace's.",
)  # fmt: skip
@click.option(
    "--scale", type=float, default=1.0, show_default=True,
    help="Divide layers, widths and vocabulary of all models by it, in both times.",
)  # fmt: skip
@click.option("--repeats", default=5, show_default=True, help="Of the schedule.")
@click.option("-o", "--output", type=PATH, help="Write a row for each stage as CSV.")
def replay(file: Path, **options: Any) -> None:
    """Execute a simulated schedule on your own GPU, or CPU, and compare times.

    FILE is a trace as Trace.save writes it.
    """
    from fate_gym.lab.replay.app import replay as executed

    executed(file, **options)
