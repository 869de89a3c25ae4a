"""The summary as a table, for Markdown, LaTeX and terminals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fate_gym.errors import printable
from fate_gym.lab.report.compute import Report
from fate_gym.lab.report.origin import commands, devices
from fate_gym.lab.report.summary import PolicySummary
from fate_gym.lab.tables import markdown_table, number, print_table

_RATIO = "latency / RoundRobin [95 % CI]"
_CELLS: dict[str, Callable[[PolicySummary], str]] = {
    "policy": lambda row: row.policy,
    "n": lambda row: str(row.n),
    _RATIO: lambda row: row.latency_ratio.text(),
    "P95": lambda row: number(row.latency_ratio_p95.value, ".3f"),
    "P95 [95 % CI]": lambda row: row.latency_ratio_p95.text(),
    "gap": lambda row: number(row.gap_to_bound, ".2f"),
    "wins": lambda row: number(row.win_rate, ".0%"),
    "vs strongest": lambda row: number(row.vs_strongest_pct.value, "+.1f", " %"),
    "vs strongest [95 % CI]": lambda row: row.vs_strongest_pct.text("+.1f", " %"),
    "p": lambda row: number(row.p_value, ".2g"),
    "decision ms P50 / P99": lambda row: f"{row.decision_ms_p50:.2f} / {row.decision_ms_p99:.2f}",
}
_MARKDOWN = [head for head in _CELLS if head not in ("P95", "vs strongest")]
_LATEX = ["policy", "n", _RATIO, "P95", "gap", "vs strongest", "p"]
_TERMINAL = ["policy", _RATIO, "P95", "wins", "gap", "decision ms P50 / P99", "n"]


def markdown_summary(rows: Sequence[PolicySummary]) -> list[str]:
    """Return the lines of a Markdown table; `legend` explains its columns."""
    return markdown_table(_MARKDOWN, _cells(rows, _MARKDOWN))


def latex_summary(report: Report) -> str:
    """Format a LaTeX table, for the package ``booktabs``."""
    heads = [f"${head}$" if len(head) == 1 else _escaped(head) for head in _LATEX]
    cells = ([_escaped(cell) for cell in row] for row in _cells(report.summary, _LATEX))
    head, *body = [" & ".join(row) + r" \\" for row in (heads, *cells)]
    made_by = [f"% {line}" for line in ("made by:", *commands(report))]
    begin = rf"\begin{{tabular}}{{l{'r' * (len(_LATEX) - 1)}}}"
    end = [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*made_by, begin, r"\toprule", head, r"\midrule", *body, *end, ""])


_SPECIAL = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        "`": r"\textasciigrave{}",
    }
)
"""LaTeX's special characters, escaped."""


def _escaped(text: str) -> str:
    return printable(text).translate(_SPECIAL).replace(r" \%", r"\,\%")


def print_summary(report: Report) -> None:
    """Print the summary to the terminal, best policy first."""
    heads = [head.replace(" [", "\n[").replace(" P50", "\nP50") for head in _TERMINAL]
    note = "gap: latency / lower bound"
    if report.strongest:
        note += f"; wins against {report.strongest}"
    print_table(heads, _cells(report.summary, _TERMINAL), note=note)


def _cells(rows: Sequence[PolicySummary], heads: Sequence[str]) -> list[list[str]]:
    return [[_CELLS[head](row) for head in heads] for row in rows]


def _pooled(report: Report) -> str:
    kinds = devices(report.sweep)
    if " and " not in kinds:
        return ""
    return f" All suites: {kinds} together; suites are told apart by them."


def _code(text: str) -> str:
    """Make a text safe between backticks, by replacing backticks in it."""
    return printable(text).replace("`", "'")


def legend(report: Report) -> str:
    """Explain the columns of the summary."""
    strongest = report.strongest
    chosen = f"chosen on {report.baseline_source}" if report.baseline_source else "chosen here"
    against = (
        f"Wins, difference [95 % CI] and p are against `{_code(strongest)}`, the strongest "
        f"baseline ({chosen}), on common workflows; p is Wilcoxon's signed-rank test on instances "
        "with Holm's correction."
        if strongest
        else "There is no baseline to compare with."
    )
    return (
        "Latency / RoundRobin: latency (time from arrival to end) over round robin's on the same "
        "workflow, cluster and seed; mean over workflows, with a 95 % bootstrap interval that "
        "draws whole instances (graphs, or streams). P95: 95th percentile of that ratio over "
        "workflows; in a stream, the ratio of the 95th percentiles of latency. Gap: latency / "
        "lower bound. "
        f"{against}{_pooled(report)}"
    )
