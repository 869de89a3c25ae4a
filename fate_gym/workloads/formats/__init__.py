"""Users' files: workflows and traces in other tools' formats, and sidecars with attributes."""

from fate_gym.workloads.formats.detect import (
    FORMATS,
    Content,
    Format,
    format_of,
    is_problem,
    read_workload,
)
from fate_gym.workloads.formats.graph import GraphLike, topology_from_graph
from fate_gym.workloads.formats.requests import ImportedRequests
from fate_gym.workloads.formats.sidecar import (
    Sidecar,
    TaskAttributes,
    import_workflow,
    import_workflows,
    problem_id,
    template,
)
from fate_gym.workloads.formats.tasks import ImportedDag
from fate_gym.workloads.formats.wfformat import load_wfformat

__all__ = [
    "FORMATS",
    "Content",
    "Format",
    "GraphLike",
    "ImportedDag",
    "ImportedRequests",
    "Sidecar",
    "TaskAttributes",
    "format_of",
    "import_workflow",
    "import_workflows",
    "is_problem",
    "load_wfformat",
    "problem_id",
    "read_workload",
    "template",
    "topology_from_graph",
]
