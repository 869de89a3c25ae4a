"""The scheduling problem: frozen, validated, JSON in and out."""

from fate_gym.problem.cluster import Cluster, Device, Link
from fate_gym.problem.io import dump_problem, load_problem, parse_problem
from fate_gym.problem.problem import SCHEMA_VERSION, Options, Problem
from fate_gym.problem.workflow import Edge, Stage, Workflow, topological_order

__all__ = [
    "SCHEMA_VERSION",
    "Cluster",
    "Device",
    "Edge",
    "Link",
    "Options",
    "Problem",
    "Stage",
    "Workflow",
    "dump_problem",
    "load_problem",
    "parse_problem",
    "topological_order",
]
