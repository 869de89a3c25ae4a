"""The scheduling problem: frozen, validated, read from and written to JSON."""

from fate_gym.catalog.limits import Queries, Seconds, Tokens
from fate_gym.problem.cluster import Cluster, Device, Link
from fate_gym.problem.io import dump_problem, load_problem, parse_json, parse_problem, read_json
from fate_gym.problem.problem import (
    SCHEMA_VERSION,
    Failures,
    Objective,
    Options,
    Outage,
    Problem,
)
from fate_gym.problem.workflow import (
    Branch,
    Choice,
    Edge,
    FanOut,
    Frozen,
    Prefix,
    Slo,
    Stage,
    Workflow,
    topological_order,
)

__all__ = [
    "SCHEMA_VERSION",
    "Branch",
    "Choice",
    "Cluster",
    "Device",
    "Edge",
    "Failures",
    "FanOut",
    "Frozen",
    "Link",
    "Objective",
    "Options",
    "Outage",
    "Prefix",
    "Problem",
    "Queries",
    "Seconds",
    "Slo",
    "Stage",
    "Tokens",
    "Workflow",
    "dump_problem",
    "load_problem",
    "parse_json",
    "parse_problem",
    "read_json",
    "topological_order",
]
