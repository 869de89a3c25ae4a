"""Request traces as CSV: Azure LLM inference and BurstGPT. Each request is a call of its own.

Azure (https://github.com/Azure/AzurePublicDataset): ``TIMESTAMP,ContextTokens,GeneratedTokens``,
with dates. BurstGPT (https://github.com/HPMLL/BurstGPT): ``Timestamp`` in seconds, ``Model``,
``Request tokens`` and ``Response tokens``; ``Session ID`` in some files, empty for requests
without one; other columns (elapsed time, total, kind of log) are ignored. Arrivals count from the
first request.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from fate_gym.catalog.limits import MOST_SECONDS, MOST_TOKENS
from fate_gym.errors import InputError
from fate_gym.problem.faults import first_repeated
from fate_gym.problem.workflow import Prefix
from fate_gym.workloads.formats.fields import (
    checked_text,
    number_from_text,
    wrong,
)
from fate_gym.workloads.formats.tasks import Call


class Prompt(NamedTuple):
    """The part of a prompt that other requests share: its place in the prefix tree."""

    group: str
    tokens: int
    branches: tuple[Prefix, ...]


class Request(NamedTuple):
    """One request: its arrival in seconds after the first request, and its call."""

    number: int
    kind: str
    arrival: float
    call: Call
    session: str | None = None
    prompt: Prompt | None = None


@dataclass(frozen=True)
class ImportedRequests:
    """The requests of a trace, in the order of their arrival."""

    name: str
    requests: tuple[Request, ...]


@dataclass(frozen=True)
class Columns:
    """The column names of a trace, and the conversion of its times to seconds."""

    clock: str
    prompt: str
    output: str
    model: str | None
    seconds: Callable[[str, str, str], float]
    session: str | None = None
    """Name of a column that not every file has."""

    @property
    def needed(self) -> tuple[str, ...]:
        names = (self.clock, self.prompt, self.output)
        return names if self.model is None else (*names, self.model)


def seconds_of_date(text: str, item: str, field: str) -> float:
    """Return the seconds of an ISO date; UTC if it has no time zone. Raises `InputError`."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise wrong(text, item, field, "a date such as 2023-11-16 18:15:46.6805900") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    try:
        return (moment - _EPOCH).total_seconds()
    except OverflowError:
        raise wrong(text, item, field, "a date that can be meant") from None


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def seconds_of_number(text: str, item: str, field: str) -> float:
    """Return seconds since the beginning of a trace."""
    return number_from_text(text, item, field, MOST_SECONDS)


AZURE = Columns("TIMESTAMP", "ContextTokens", "GeneratedTokens", None, seconds_of_date)
BURSTGPT = Columns(
    "Timestamp", "Request tokens", "Response tokens", "Model", seconds_of_number, "Session ID"
)


def has_columns(text: str, columns: Columns) -> bool:
    """Return whether the first line of a text names the columns."""
    header = text.lstrip().partition("\n")[0]
    names = {name.strip().strip('"') for name in header.split(",")}
    return {columns.clock, columns.prompt, columns.output} <= names


def read_requests(text: str, name: str, columns: Columns) -> ImportedRequests:
    """Return the requests of a trace.

    Raises:
        InputError: naming the line and the column at fault.
    """
    requests: list[Request] = []
    start = last = 0.0
    for item, row in _rows(text, columns):
        now = columns.seconds(row[columns.clock], item, columns.clock)
        if not requests:
            start = now
        elif now < last:
            raise InputError(
                f"the clock runs backwards, by {last - now:g} s",
                item=item,
                field=columns.clock,
                remedy=f"sort the lines by {columns.clock}",
            )
        last = now
        prompt, output = (_tokens(row[key], item, key) for key in (columns.prompt, columns.output))
        model = None if columns.model is None else row[columns.model]
        kind = "request" if model is None else checked_text(model, item, columns.model or "")
        call = Call(model, prompt, output)
        session = row.get(columns.session or "") or None
        if session is not None:
            checked_text(session, item, columns.session or "")
        requests.append(Request(len(requests) + 1, kind, now - start, call, session))
    if not requests:
        raise InputError("there are no requests", remedy="add lines below the header")
    return ImportedRequests(name, tuple(requests))


def _rows(text: str, columns: Columns) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each non-empty line: its name for messages, and its fields by column."""
    reader = csv.reader(io.StringIO(text.lstrip(), newline=""), strict=True)
    first = len(text) - len(text.lstrip())
    skipped = text[:first].count("\n")
    header: list[str] = []
    try:
        for row in reader:
            item = f"line {reader.line_num + skipped}"
            fields = [field.strip() for field in row]
            if not any(fields):
                continue
            if not header:
                header = _header(fields, item, columns)
                continue
            if len(fields) != len(header):
                raise InputError(
                    f"has {len(fields)} columns, and the header {len(header)}",
                    item=item,
                    remedy="check that the file is complete",
                )
            yield item, dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise InputError(
            f"not valid CSV ({error})",
            item=f"line {reader.line_num + skipped}",
            remedy="correct the line",
        ) from None


def _header(fields: list[str], item: str, columns: Columns) -> list[str]:
    twice = first_repeated(fields)
    missing = [name for name in columns.needed if name not in fields]
    if twice is not None:
        raise InputError(f"column {twice!a} occurs twice", item=item, remedy="keep one of the two")
    if missing:
        raise InputError(f"column {missing[0]!r} is missing", item=item, remedy="add the column")
    return fields


def _tokens(text: str, item: str, field: str) -> int:
    """Return the tokens of a request: a whole number, at least 1."""
    value = number_from_text(text, item, field, MOST_TOKENS)
    if value == 0:
        raise InputError(
            "is 0: a request that failed, or was not measured",
            item=item,
            field=field,
            remedy="remove such lines (BurstGPT has files without failures)",
        )
    if value != int(value):
        raise wrong(text, item, field, f"a whole number from 1 to {MOST_TOKENS:g}")
    return int(value)
