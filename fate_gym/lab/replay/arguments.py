"""The command line of `fate-gym replay`. Imports nothing heavy: every verb's parser is made."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """The options of ``replay``; their names are the parameters of `app.replay`."""
    parser.add_argument("file", type=Path, help="trace as Trace.save writes it")
    parser.add_argument("--device", default="cuda:0", help="cpu or cuda:NUMBER (default cuda:0)")
    parser.add_argument(
        "--of", metavar="DEVICE", help="whose shards to execute, where the trace has several"
    )
    parser.add_argument(
        "--gpu", metavar="FILE.yaml#NAME",
        help="compare with the times of this GPU instead of those of the trace's",
    )  # fmt: skip
    parser.add_argument(
        "--scale", type=float, default=1.0,
        help="divide layers, widths and vocabulary of all models by it, in both times (default 1)",
    )  # fmt: skip
    parser.add_argument("--repeats", type=int, default=5, help="of the schedule (default 5)")
    parser.add_argument("-o", "--output", type=Path, help="write a row for each stage as CSV")
