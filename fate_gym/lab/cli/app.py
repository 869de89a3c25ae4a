"""The command ``fate-gym``: its verbs and exit codes.

Exit codes: 0 done, 1 a job failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import click

from fate_gym import __version__
from fate_gym.errors import InputError, InputWarning, near_matches, printable
from fate_gym.lab.cli import (
    completion,
    demo,
    doctor,
    files,
    gantt,
    hardware,
    listing,
    new_policy,
    render,
    runs,
)

SECTIONS: dict[str, tuple[click.Command, ...]] = {
    "First steps": (demo.demo, doctor.doctor, completion.completion),
    "Run and compare": (runs.evaluate, runs.train, runs.report, runs.compare),
    "Look": (
        listing.policies,
        listing.suites,
        runs.describe,
        gantt.gantt,
        render.render,
        runs.session,
    ),
    "Bring your own": (
        new_policy.new_policy,
        files.validate,
        files.import_,
        files.schema,
        files.plan,
        files.fit_cost_model,
    ),
    "Your own hardware": (hardware.calibrate, hardware.replay),
    "Weights & Biases": (runs.track, runs.wandb_view),
}
"""The verbs in the order and sections of the help."""


class Verbs(click.Group):
    """A group that lists its verbs in sections and suggests near matches for unknown ones."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(len(name) for name in self.commands)
        for section, verbs in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(
                    [(str(verb.name).ljust(width), verb.get_short_help_str(80)) for verb in verbs]
                )

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if not (ctx.resilient_parsing or name in self.commands or name.startswith("-")):
            raise InputError(f"unknown verb {name!r}", remedy=near_matches(name, self.commands))
        return super().resolve_command(ctx, args)


@click.group(
    cls=Verbs,
    subcommand_metavar="VERB ...",
    no_args_is_help=False,
    context_settings={"max_content_width": 100},
)
@click.version_option(__version__, prog_name="fate-gym", message="%(prog)s %(version)s")
def fate_gym() -> None:
    """Schedule heterogeneous LLM workflows on heterogeneous GPUs, and compare policies.

    Options such as suite=quick are the configuration's: `fate-gym evaluate --help` lists the
    choices. `fate-gym VERB --help` explains a verb.
    """


for _verbs in SECTIONS.values():
    for _verb in _verbs:
        fate_gym.add_command(_verb)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run with a command line (default: this process's); return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    with warnings.catch_warnings():
        warnings.simplefilter("always", InputWarning)
        warnings.showwarning = _warn
        try:
            code = fate_gym.main(words, prog_name="fate-gym", standalone_mode=False)
            sys.stdout.flush()
            return int(code or 0)
        except InputError as error:
            return _fail(str(error))
        except click.ClickException as error:
            return _fail(_usage(error))
        except click.Abort:
            print("interrupted", file=sys.stderr)
            return 130
        except BrokenPipeError:
            _close_stdout()
            return 1


def _usage(error: click.ClickException) -> str:
    """Format click's error about a command line as one sentence with a remedy."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else "fate-gym"
    message = printable(error.format_message())
    stop = "" if message.endswith(("?", ".")) else "."
    return f"{message}{stop} Remedy: see {command} --help."


def _fail(message: str) -> int:
    with suppress(BrokenPipeError):
        sys.stdout.flush()
    print(f"error: {message}", file=sys.stderr)
    return 2


def _close_stdout() -> None:
    """Redirect stdout so that Python's flush at exit succeeds: the reader (``| head``) has gone."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _warn(message: Warning | str, *_where: Any, **_more: Any) -> None:
    """Print a warning in one line, like errors."""
    print(f"warning: {printable(message)}", file=sys.stderr)
