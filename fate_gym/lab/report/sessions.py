"""Session metrics in a report: latency, first tokens, repeated prefill, hit rates."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from fate_gym.lab.report.runs import RUN, TextTable, run_estimates, streams_of
from fate_gym.lab.report.serving import Shown
from fate_gym.lab.tables import Estimate, number

SESSIONS = {
    "session_latency_mean": Shown("session, s", "latency of a session, s"),
    "latency_mean": Shown("turn, s", "latency of a turn, s"),
    "latency_p95": Shown("turn P95, s", "latency of a turn P95, s"),
    "turn_ttft_mean": Shown("TTFT, s", "time to first token of a turn, s"),
    "turn_ttft_p95": Shown("TTFT P95, s", "time to first token of a turn P95, s"),
    "again_tokens": Shown("again, 1,000 tokens", "prefilled again, 1,000 tokens", 1e-3, ",.1f"),
    "again_share": Shown("again, %", "prefilled again, % of prefill", 100.0, ".1f"),
    "shared_hit_rate": Shown("hits shared, %", "hit rate, shared prefixes, %", 100.0, ".1f"),
    "within_hit_rate": Shown("hits within, %", "hit rate within a session, %", 100.0, ".1f"),
    "context_hit_rate": Shown("hits contexts, %", "hit rate, inherited contexts, %", 100.0, ".1f"),
    "prefix_memory_share": Shown("memory, %", "memory that prefixes take, %", 100.0, ".1f"),
}
"""Metrics in display order; all are of whole runs, see `fate_gym.metrics.sessions`."""

INTERVALS = {"session_latency_mean", "latency_mean", "turn_ttft_mean", "again_share"}
"""Columns shown with their intervals; with all intervals the table would be too wide."""

SESSION_LEGEND = (
    "Means over streams, some with 95 % bootstrap intervals that draw whole streams; n: turns / "
    "sessions. Session: seconds in which a turn of the session is under way (without thinking). "
    "TTFT: from when the first call of a turn is ready to its first token. Again: prefix tokens "
    "that were computed before, on any device, and are prefilled once more; % of all tokens that "
    "are prefilled. Hits: tokens found in a cache / tokens wanted, of prefixes that several "
    "sessions share, of those within a session, of contexts inherited inside a workflow. Memory: "
    "share of the devices' memory that prefixes take, mean over time."
)


def session_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the workflows of runs with sessions; results from before sessions have none."""
    streams = streams_of(rows)
    if "session" not in streams:
        return streams.iloc[:0]
    named = (streams["session"] != "").groupby([streams[key] for key in RUN]).transform("any")
    return streams[named]


def session_table(rows: pd.DataFrame, order: Sequence[str]) -> TextTable | None:
    """Make the table of one suite; None: it has no sessions.

    Columns without values are left out.

    Args:
        rows: workflows of the suite.
        order: policies in the order of the table.
    """
    turns = session_rows(rows)
    if turns.empty:
        return None
    runs = turns.drop_duplicates(RUN).set_index(RUN)
    runs = runs.assign(latency_mean=turns.groupby(RUN)["latency"].mean()).reset_index()
    columns = [name for name in SESSIONS if name in runs and runs[name].notna().any()]
    runs = runs.assign(**{name: runs[name] * SESSIONS[name].factor for name in columns})
    table = []
    for name, row in run_estimates(runs, order, columns).items():
        own = turns[turns["policy"] == name]
        sessions = own[own["session"] != ""].drop_duplicates([*RUN, "session"])
        cells = [_cell(column, row[column]) for column in columns]
        table.append([name, f"{len(own):,} / {len(sessions):,}", *cells])
    return TextTable(["policy", "n", *(SESSIONS[name].head for name in columns)], table)


def _cell(column: str, mean: Estimate) -> str:
    form = SESSIONS[column].form
    return mean.text(form) if column in INTERVALS else number(mean.value, form)
