"""The scheduling problem: frozen, validated, JSON in and out."""

from fate_gym.problem.cluster import Cluster, Device, Link
from fate_gym.problem.io import dump_problem, load_problem, parse_problem
from fate_gym.problem.problem import SCHEMA_VERSION, Failures, Options, Outage, Problem
from fate_gym.problem.workflow import (
    Branch,
    Choice,
    Edge,
    FanOut,
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
    "Link",
    "Options",
    "Outage",
    "Prefix",
    "Problem",
    "Slo",
    "Stage",
    "Workflow",
    "dump_problem",
    "load_problem",
    "parse_problem",
    "topological_order",
]
