"""Which policies of a sweep the others are compared with."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

NOT_BASELINES = frozenset({"fate", "reference"})
"""Families that the strongest baseline is not chosen from."""


@dataclass(frozen=True)
class Baselines:
    """The policies that others are compared with; None where a sweep has none of the kind.

    A boosted policy chooses devices by estimates that know the state of the devices; a strict one
    sees what its source says that it sees.
    """

    strongest: str | None
    strict: str | None
    boosted: str | None


def choose_baselines(
    order: Sequence[str], families: Mapping[str, str], boosted: Collection[str]
) -> Baselines:
    """The best of each kind.

    Args:
        order: policies, best first.
        families: family of each.
        boosted: those that are boosted.
    """
    known = [name for name in order if families[name] not in NOT_BASELINES]
    return Baselines(
        strongest=next(iter(known), None),
        strict=next((name for name in known if name not in boosted), None),
        boosted=next((name for name in known if name in boosted), None),
    )


def mean_order(rows: pd.DataFrame) -> list[str]:
    """Policies by their mean latency ratio, best first."""
    means = rows.groupby("policy")["latency_ratio"].mean()
    return sorted((str(name) for name in means.index), key=lambda name: (means[name], name))
