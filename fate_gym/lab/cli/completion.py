"""Shell completion of verbs, their options and configuration options, for three shells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    ShellComplete,
    add_completion_class,
    get_completion_class,
)

VARIABLE = "_FATE_GYM_COMPLETE"
_SHELLS = ("bash", "zsh", "fish")


@add_completion_class
class Bash(BashComplete):
    """Adds a space only after complete words: a value follows ``policy=``."""

    source_template = BashComplete.source_template.replace("-o nosort", "-o nosort -o nospace")

    def format_completion(self, item: CompletionItem[Any]) -> str:
        open_end = item.type != "plain" or item.value.endswith(("=", "."))
        return f"{super().format_completion(item)}{'' if open_end else ' '}"


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that lets a shell complete this command.

    \b
    bash, in ~/.bashrc:                eval "$(fate-gym completion bash)"
    zsh, in ~/.zshrc after compinit:   eval "$(fate-gym completion zsh)"
    fish, in config.fish:              fate-gym completion fish | source
    """  # noqa: D301
    made = get_completion_class(shell)
    assert made is not None
    root = ctx.find_root()
    shown: ShellComplete = made(root.command, {}, "fate-gym", VARIABLE)
    click.echo(shown.source())


def complete_evaluate(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """List options of ``fate-gym evaluate`` that begin with ``incomplete``."""
    return _complete(ctx, param, incomplete, "config", ("-m", "--dry-run", "--help", "--cfg"))


def complete_train(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """List options of ``fate-gym train`` that begin with ``incomplete``."""
    return _complete(ctx, param, incomplete, "train", ("-m", "--dry-run", "--help", "--cfg"))


def _complete(
    ctx: click.Context,
    param: click.Parameter,
    incomplete: str,
    config_name: str,
    flags: Sequence[str],
) -> list[CompletionItem[str]]:
    words = [str(word) for word in ctx.params.get(str(param.name)) or ()]
    given, prefix = joined([*words, incomplete])
    *before, word = given
    if word.startswith("-"):
        return [CompletionItem(flag) for flag in flags if flag.startswith(word)]
    found = matches(word, before, config_name)
    return [CompletionItem(one.removeprefix(prefix)) for one in found]


def joined(words: Sequence[str]) -> tuple[list[str], str]:
    """Rejoin words as they were typed; also return the part of the last that the shell keeps.

    Bash breaks words at ``=``: ``policy=he`` arrives as three, and only ``he`` is completed.
    """
    whole: list[str] = []
    prefix = ""
    for word in words:
        broken = bool(whole) and (word == "=" or whole[-1].endswith("="))
        prefix = (whole[-1] if word != "=" else f"{whole[-1]}=") if broken else ""
        whole[len(whole) - broken :] = [(whole[-1] if broken else "") + word]
    return whole, prefix


def matches(word: str, before: Sequence[str], config_name: str) -> list[str]:
    """List the options and values to which a word can be completed.

    Args:
        word: what has been typed of the word.
        before: the options in front of it; they decide what ``policy.params.`` offers.
        config_name: the primary configuration in ``conf/``.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.object_type import ObjectType

    from fate_gym.lab.sweep.compose import hydra_ready

    with hydra_ready():
        loader = GlobalHydra.instance().config_loader()
        groups = [group for group in loader.list_groups("") if group != "hydra"]
        key, equals, value = word.partition("=")
        if equals and key in groups:
            # Several values are separated by commas.
            known, comma, _ = value.rpartition(",")
            start = f"{key}={known}{comma}"
            names = loader.get_group_options(key, results_filter=ObjectType.CONFIG)
            return [start + name for name in sorted(names) if f"{start}{name}".startswith(word)]
        if equals:
            return []
        options = [*(f"{group}=" for group in groups), *_keys(config_name, before, groups)]
    return sorted(_next_level(word, options))


def _keys(config_name: str, before: Sequence[str], groups: Sequence[str]) -> list[str]:
    """List every option of the configuration composed from the choices so far."""
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    chosen = [word for word in before if word.partition("=")[0] in groups and "," not in word]
    try:
        config = compose(config_name, overrides=chosen)
    except (HydraException, OmegaConfBaseException):  # the command is still incomplete
        config = compose(config_name)
    values = OmegaConf.to_container(config)
    assert isinstance(values, Mapping)
    return [f"{key}=" for key in _paths(values)]


def _paths(values: Mapping[Any, Any], above: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        path = f"{above}{key}"
        found += _paths(value, f"{path}.") if isinstance(value, Mapping) and value else [path]
    return found


def _next_level(word: str, options: Sequence[str]) -> set[str]:
    """Return the options that begin with ``word``, each cut after its next dot."""
    found = set()
    for option in options:
        if option.startswith(word):
            end = option.find(".", len(word))
            found.add(option if end < 0 else option[: end + 1])
    return found
