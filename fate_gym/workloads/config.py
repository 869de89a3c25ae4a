"""Read named YAML configurations (groups of ``conf/``) into pydantic models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from fate_gym.errors import InputError, check_known
from fate_gym.problem.faults import first_repeated, from_pydantic

Spec = TypeVar("Spec", bound=BaseModel)

_UNREADABLE = (
    yaml.YAMLError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What PyYAML raises, besides its own error, for scalars that do not fit their tag."""

_MOST_VALUES = 1_000_000
"""Most values of a file with aliases expanded: nested aliases double with every line."""
_MERGE = "tag:yaml.org,2002:merge"
_OPEN = -1
"""Size of a node while it is being measured."""


def read_group(group: str, name: str, extra_dirs: Sequence[str | Path]) -> tuple[Any, str]:
    """Return the content of configuration ``name`` of a group, and its source.

    ``extra_dirs`` are searched first; each holds groups as folders, like ``conf/``.

    Raises:
        InputError: if there is none of that name, or it is not YAML.
    """
    folders: list[Traversable] = [Path(extra) / group for extra in extra_dirs]
    folders.append(files("conf").joinpath(group))
    options = {
        entry.name.removesuffix(".yaml"): entry
        for folder in reversed(folders)
        if folder.is_dir()
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    }
    check_known(f"unknown {group}", name, options)
    source = str(options[name])
    return parse_yaml(options[name].read_bytes(), source), source


def parse_yaml(text: bytes, source: str | Path) -> Any:
    """Return the content of a YAML file.

    Raises:
        InputError: it is not UTF-8 YAML, gives a key twice, or its aliases expand too far.
    """
    try:
        loader = yaml.SafeLoader(text.decode("utf-8-sig"))
        node = loader.get_single_node()
        if node is None:
            return None
        _measure(node, {})
        return loader.construct_document(node)
    except UnicodeDecodeError as error:
        raise InputError(
            f"not text in UTF-8 ({error.reason} at byte {error.start})",
            source=source,
            remedy="save the file as UTF-8",
        ) from None
    except _UNREADABLE as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InputError(
            f"not valid YAML ({' '.join(why.split())})", source=source, remedy="correct the file"
        ) from None


def _measure(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return the number of values in a node, with aliases expanded; ``sizes`` is by node id.

    Raises:
        yaml.YAMLError: too many values, a node that contains itself, or a key that is given twice
            (the last value would silently win).
    """
    if id(node) in sizes:
        if sizes[id(node)] == _OPEN:
            raise _fault(node, "an alias stands for what it stands in")
        return sizes[id(node)]
    sizes[id(node)] = _OPEN
    size = 1
    if isinstance(node, yaml.MappingNode):
        keys = (key for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        twice = first_repeated((key.tag, key.value) for key in keys if key.tag != _MERGE)
        if twice is not None:
            raise _fault(node, f"the key {twice[1][:80]!a} is given twice in one mapping")
        size += sum(_measure(part, sizes) for pair in node.value for part in pair)
    elif isinstance(node, yaml.SequenceNode):
        size += sum(_measure(part, sizes) for part in node.value)
    if size > _MOST_VALUES:
        raise _fault(node, f"aliases make more than {_MOST_VALUES:,} values of it")
    sizes[id(node)] = size
    return size


def _fault(node: yaml.Node, problem: str) -> yaml.YAMLError:
    mark = node.start_mark
    return yaml.constructor.ConstructorError(None, None, problem, mark)


def parse(data: Any, spec: type[Spec], *, source: str | Path) -> Spec:
    """Validate a mapping; misspelt fields at any depth raise `InputError`."""
    if isinstance(data, Mapping):
        for key in data:
            check_known("unknown field", str(key), spec.model_fields, source=source)
    try:
        return spec.model_validate(data)
    except ValidationError as error:
        raise from_pydantic(error, data, source, spec) from None
