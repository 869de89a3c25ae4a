"""Labels that distinguish the variants of a policy or a suite."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fate_gym.lab.jobs.result import JobResult
from policies.registry import policy_specs


def policy_labels(jobs: Sequence[JobResult]) -> list[str]:
    """Label each job's policy by its name and the parameters in which its variants differ.

    If one of the variants has the parameters of ``conf/policy``, it gets the plain name and the
    others list what they change.
    """
    variants: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for result in jobs:
        if result.params not in variants[result.policy]:
            variants[result.policy].append(result.params)
    specs = policy_specs()
    labels = []
    for result in jobs:
        known = variants[result.policy]
        usual = specs[result.policy].params if result.policy in specs else None
        names = sorted({name for params in known for name in params})
        if usual is not None and usual in known:
            differing = [name for name in names if result.params.get(name) != usual.get(name)]
        else:
            differing = [
                name for name in names if any(p.get(name) != known[0].get(name) for p in known)
            ]
        parts = [f"{name}={result.params.get(name)}" for name in differing]
        labels.append(f"{result.policy} ({', '.join(parts)})" if parts else result.policy)
    return labels


def suite_labels(jobs: Sequence[JobResult]) -> list[str]:
    """Label each job's suite by its name and what distinguishes its variants.

    That is the cluster, a hash if cluster and execution are equal, and the execution unless it is
    exclusive.
    """
    clusters: dict[str, set[str]] = defaultdict(set)
    hashes: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for result in jobs:
        clusters[result.suite].add(result.cluster)
        hashes[result.suite, result.cluster, result.execution].add(result.suite_hash)
    labels = []
    for result in jobs:
        label = result.suite
        if len(clusters[result.suite]) > 1:
            label += f"@{result.cluster}"
        if len(hashes[result.suite, result.cluster, result.execution]) > 1:
            label += f"#{result.suite_hash[:4]}"
        if result.execution != "exclusive":
            label += f" ({result.execution})"
        labels.append(label)
    return labels
