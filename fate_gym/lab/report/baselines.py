"""Chooses the policies of a sweep with which the others are compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

NOT_BASELINES = frozenset({"fate", "reference"})
"""Families excluded from the choice of the strongest baseline."""


@dataclass(frozen=True)
class Baselines:
    """The strongest baselines: of all, strict and boosted; None if a sweep has none of the kind.

    A boosted policy chooses devices by estimates that know the state of the devices; a strict one
    sees only what its published source says it sees.
    """

    strongest: str | None
    strict: str | None
    boosted: str | None


def choose_baselines(
    order: Sequence[str], families: Mapping[str, str], boosted: Collection[str]
) -> Baselines:
    """Choose the best baseline of each kind.

    Args:
        order: policies, best first.
        families: family of each policy.
        boosted: policies that are boosted.
    """
    known = [name for name in order if families[name] not in NOT_BASELINES]
    return Baselines(
        strongest=next(iter(known), None),
        strict=next((name for name in known if name not in boosted), None),
        boosted=next((name for name in known if name in boosted), None),
    )


def mean_order(rows: pd.DataFrame) -> list[str]:
    """Sort policies by their mean latency ratio, best first."""
    means = rows.groupby("policy")["latency_ratio"].mean()
    return sorted((str(name) for name in means.index), key=lambda name: (means[name], name))
