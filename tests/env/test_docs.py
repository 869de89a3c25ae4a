"""The documentation of the environment is generated from the features, and is complete."""

from __future__ import annotations

import re

import pytest

from fate_gym.env import WorkflowSchedulingEnv, docs
from fate_gym.env.features import GROUPS, NODES
from fate_gym.env.options import EnvOptions


def test_the_page_is_up_to_date() -> None:
    text = docs.PAGE.read_text(encoding="utf-8")
    assert docs.BEGIN in text
    assert docs.page(text) == text, "run python -m fate_gym.env.docs"


def test_the_docstring_has_gymnasiums_sections() -> None:
    text = WorkflowSchedulingEnv.__doc__ or ""
    sections = re.findall(r"^ *## (.*)$", text, flags=re.MULTILINE)
    assert sections == [
        "Description", "Action Space", "Observation Space", "Rewards", "Starting State",
        "Episode End", "Information", "Arguments", "Version History",
    ]  # fmt: skip


@pytest.mark.parametrize("group", [*GROUPS.values(), NODES], ids=lambda group: group.key)
def test_every_feature_has_its_line(group: object) -> None:
    """With the column that it has in the observation of an environment."""
    assert isinstance(group, type(NODES))
    text = docs.PAGE.read_text(encoding="utf-8")
    part = text[text.index(f"`{group.key}`: {group.rows}") :]
    for i, column in enumerate(group.columns(0)):
        assert re.search(rf"\| {i} \| `{column.name}` \| ", part), column.name


def test_every_option_is_described() -> None:
    text = WorkflowSchedulingEnv.__doc__ or ""
    arguments = text[text.index("## Arguments") :]
    for name in EnvOptions.model_fields:
        assert f"`{name}`" in arguments, name
