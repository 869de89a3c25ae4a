"""The text of errors, and errors in worker processes."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from fate_gym.errors import (
    FateGymError,
    IllegalActionError,
    InputError,
    check_known,
    near_matches,
    printable,
)


def test_text_goes_from_file_to_field_to_remedy() -> None:
    error = InputError(
        "must be positive",
        source=Path("plan.json"),
        item="workflow 'w', stage 's'",
        field="queries",
        remedy="correct the value",
    )
    assert str(error) == (
        "plan.json: workflow 'w', stage 's': field 'queries': must be positive. "
        "Remedy: correct the value."
    )


def test_parts_left_out_leave_no_trace() -> None:
    assert str(InputError("it is broken")) == "it is broken."
    assert str(InputError("it is broken", field="x")) == "field 'x': it is broken."
    assert str(InputError("it is broken", source="f", remedy="mend it")) == (
        "f: it is broken. Remedy: mend it."
    )


def test_at_fills_the_source_in_once() -> None:
    error = InputError("broken", item="stage 's'", field="model", remedy="mend it")
    placed = error.at("a.json")
    assert (placed.source, placed.item, placed.field) == ("a.json", "stage 's'", "model")
    assert placed.remedy == "mend it"
    assert placed.at("b.json").source == "a.json"
    assert error.source is None


def test_pickle_keeps_every_part() -> None:
    error = InputError("broken", source="f", item="i", field="x", remedy="mend it")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is InputError
    assert vars(again) == vars(error)
    assert str(again) == str(error)


@pytest.mark.parametrize("kind", [InputError, IllegalActionError])
def test_one_base_and_value_error_for_all(kind: type[Exception]) -> None:
    assert issubclass(kind, FateGymError)
    assert issubclass(kind, ValueError)


def test_an_unknown_name_says_where_and_what_is_near() -> None:
    check_known("unknown model", "Llama", {"Llama": 1})
    with pytest.raises(InputError) as caught:
        check_known("unknown model", "Lama", {"Llama": 1}, item="stage 's'", field="model")
    assert str(caught.value) == (
        "stage 's': field 'model': unknown model 'Lama'. Remedy: did you mean 'Llama'?"
    )


def test_near_matches() -> None:
    assert near_matches("Lama", ["Llama", "Qwen", "Mistral"]) == "did you mean 'Llama'?"
    assert near_matches("zzz", ["b", "a"]) == "choose one of a, b"
    many = [f"n{i:02}" for i in range(13)]
    assert near_matches("zzz", many) == (
        "choose one of the 13 known names, e.g. n00, n01, n02, n03, n04, n05"
    )


def test_what_a_file_holds_neither_controls_the_terminal_nor_fills_it() -> None:
    error = InputError(
        "unknown stage '\x1b[2J\n\u202e\ud800'",
        source="a\tb.json",
        item="x" * 100_000,
        field="y" * 100_000,
        remedy="choose one of \x00",
    )
    assert str(error).isprintable()
    assert len(str(error)) < 2_000
    assert r"unknown stage '\x1b[2J\n\u202e\ud800'" in str(error)
    assert str(InputError("é, 日本 and × are fine")) == "é, 日本 and × are fine."


def test_messages_show_what_strangers_wrote_and_have_an_end() -> None:
    error = InputError(f"unknown \x1b[2J{'x' * 100_000}", source="a\u202e\nb", remedy="\ud800")
    text = str(error)
    assert text.isprintable()
    assert text.startswith(r"a\u202e\nb: unknown \x1b[2Jxxx")
    assert len(text) < 3_000
    assert printable("Größe 5 %") == "Größe 5 %"
