"""``fate-gym new-policy``: writes the files of a new policy that can run at once."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path

import click

from fate_gym.errors import InputError
from fate_gym.files import write_text
from fate_gym.lab.cli.options import PATH

_NAME = re.compile(r"[a-z][a-z0-9_]*")
TEMPLATES = {
    "policy.py.txt": "{name}.py",
    "policy.yaml.txt": "conf/policy/{name}.yaml",
    "test_policy.py.txt": "test_{name}.py",
}
"""Paths of a new policy's files in its directory, by template."""


@click.command("new-policy")
@click.argument("name")
@click.option("--directory", type=PATH, help="Where to. Default: a new directory of that name.")
def new_policy(name: str, directory: Path | None) -> None:
    """Write the files of a new policy: code, configuration and a test. It runs at once.

    NAME is in lower case with underscores, e.g. my_policy.
    """
    from fate_gym.lab.errors import unwritable

    check_name(name)
    folder = Path(name) if directory is None else directory
    try:
        written = scaffold(name, folder)
    except OSError as error:
        raise unwritable(folder, error, remedy="choose another place with --directory") from None
    for path in written:
        print(path)
    print(f"\nTry it:\n  cd {folder}")
    print(
        "  fate-gym evaluate --config-dir conf -m "
        f"suite=smoke policy={name},heft name={name}\n  python -m pytest   (pip install pytest)"
    )


def check_name(name: str) -> None:
    """Raise `InputError` unless a policy and its module can have this name."""
    from policies.registry import policy_names

    if not _NAME.fullmatch(name) or keyword.iskeyword(name):
        raise InputError(
            f"{name!r} cannot name a module",
            remedy="use lower-case letters, digits and underscores, a letter first",
        )
    if name in policy_names():
        raise InputError(f"there is a policy {name!r} already", remedy="choose another name")


def scaffold(name: str, folder: Path) -> list[Path]:
    """Write the files of a policy and return their paths.

    Raises:
        InputError: one of the files already exists.
    """
    contents = {
        folder / target.format(name=name): _filled(template, name)
        for template, target in TEMPLATES.items()
    }
    for path in contents:
        if path.exists():
            raise InputError("the file is there already", source=path, remedy="move it away")
    for path, text in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return list(contents)


def _filled(template: str, name: str) -> str:
    text = files("fate_gym.lab.cli").joinpath("templates", template).read_text(encoding="utf-8")
    title = "".join(part.capitalize() for part in name.split("_"))
    return text.replace("NAME", name).replace("TITLE", title)
