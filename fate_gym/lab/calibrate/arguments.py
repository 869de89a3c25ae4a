"""The command line of `fate-gym calibrate`. Imports nothing heavy: every verb's parser is made."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path

MODELS = ("Llama-3.1-8B", "Qwen2.5-7B")


def add_arguments(parser: ArgumentParser) -> None:
    """The options of ``calibrate``; their names are the parameters of `app.calibrate`."""
    parser.add_argument("--device", default="cuda:0", help="cpu or cuda:NUMBER (default cuda:0)")
    parser.add_argument("--minutes", type=float, default=5.0, help="to measure for (default 5)")
    parser.add_argument(
        "--model", dest="models", action="append", metavar="MODEL",
        help="of the catalogue; constants are fitted on the first, the passes of others test them "
        f"(default {' and '.join(MODELS)}; may be repeated)",
    )  # fmt: skip
    parser.add_argument(
        "--scale", type=float,
        help="divide layers, widths and vocabulary by it "
        "(default: 8 on a CPU, as little as fits on a GPU)",
    )  # fmt: skip
    parser.add_argument("--name", help="of the GPU in the file (default: from the device's name)")
    parser.add_argument(
        "--like", metavar="GPU",
        help="GPU of the catalogue with the same data sheet: peaks, links, watts and price "
        "(default: the peaks are the best rates seen)",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("gpu.yaml"),
        help="the file (default gpu.yaml); beside it a table as .csv and a picture as .png",
    )  # fmt: skip
