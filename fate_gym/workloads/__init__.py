"""Sources of workflows: topologies, templates, files; also clusters, arrivals and suites."""

from fate_gym.workloads.agentic import build_template
from fate_gym.workloads.arrivals import Arrivals, arrival_times
from fate_gym.workloads.clusters import (
    ClusterSpec,
    NodeSpec,
    build_cluster,
    load_cluster,
    load_problem_file,
)
from fate_gym.workloads.files import FilesSuite
from fate_gym.workloads.formats import (
    Content,
    import_workflow,
    import_workflows,
    load_wfformat,
    read_workload,
    topology_from_graph,
)
from fate_gym.workloads.roles import assign_roles
from fate_gym.workloads.sessions import SessionRules, session_workflows
from fate_gym.workloads.suites import (
    AgenticSuite,
    AgentsSuite,
    AlibabaSuite,
    PrefixReuseSuite,
    RequestsSuite,
    StressSuite,
    SuiteSpec,
    WfCommonsSuite,
    build_suite,
    load_suite,
    parse_suite,
    select_topologies,
    suite_class,
)
from fate_gym.workloads.topology import Topology
from fate_gym.workloads.traces import Trace
from fate_gym.workloads.wfcommons import families, topologies, topology

__all__ = [
    "AgenticSuite",
    "AgentsSuite",
    "AlibabaSuite",
    "Arrivals",
    "ClusterSpec",
    "Content",
    "FilesSuite",
    "NodeSpec",
    "PrefixReuseSuite",
    "RequestsSuite",
    "SessionRules",
    "StressSuite",
    "SuiteSpec",
    "Topology",
    "Trace",
    "WfCommonsSuite",
    "arrival_times",
    "assign_roles",
    "build_cluster",
    "build_suite",
    "build_template",
    "families",
    "import_workflow",
    "import_workflows",
    "load_cluster",
    "load_problem_file",
    "load_suite",
    "load_wfformat",
    "parse_suite",
    "read_workload",
    "select_topologies",
    "session_workflows",
    "suite_class",
    "topologies",
    "topology",
    "topology_from_graph",
]
