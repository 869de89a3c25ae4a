"""The page about the kernel is generated from the schema, and names every module."""

from __future__ import annotations

import re
from pathlib import Path

from fate_gym.jit import Block, Row
from fate_gym.kernel import docs, placements, schema


def test_the_page_is_up_to_date() -> None:
    text = docs.PAGE.read_text(encoding="utf-8")
    assert docs.BEGIN in text
    assert docs.page(text) == text, "run python -m fate_gym.kernel.docs"


def test_every_block_and_record_is_shown() -> None:
    declared = {
        owner
        for module in (schema, placements)
        for owner in vars(module).values()
        if isinstance(owner, type) and issubclass(owner, Block | Row)
    }
    assert declared - {Block, Row} == set(docs.SHOWN)


def test_every_field_says_what_it_is() -> None:
    for owner in docs.SHOWN:
        for name, field in owner.fields.items():
            assert len(field.text) > 2, f"{owner.__name__}.{name}"


def test_every_module_is_listed() -> None:
    listed = set(re.findall(r"`(\w+)`", docs.PAGE.read_text(encoding="utf-8").split("## How")[0]))
    modules = {path.stem for path in Path(docs.__file__).parent.glob("*.py")}
    assert modules - {"__init__", "docs"} <= listed
