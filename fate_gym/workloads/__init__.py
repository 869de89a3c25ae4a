"""Where workflows come from: real topologies, modelled attributes, clusters and suites."""

from fate_gym.workloads.clusters import ClusterSpec, NodeSpec, build_cluster, load_cluster
from fate_gym.workloads.roles import assign_roles
from fate_gym.workloads.suites import SuiteSpec, build_suite, load_suite, select_topologies
from fate_gym.workloads.topology import Topology
from fate_gym.workloads.wfcommons import families, topologies, topology

__all__ = [
    "ClusterSpec",
    "NodeSpec",
    "SuiteSpec",
    "Topology",
    "assign_roles",
    "build_cluster",
    "build_suite",
    "families",
    "load_cluster",
    "load_suite",
    "select_topologies",
    "topologies",
    "topology",
]
