"""A Ray cluster of two raylets on loopback: prints its address; ``lose`` on standard input kills
the second raylet with everything that runs on it, anything else ends the cluster."""

from __future__ import annotations

import sys

from ray.cluster_utils import Cluster


def main() -> None:
    size = {"num_cpus": 1, "object_store_memory": 80_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=size)
    second = cluster.add_node(num_cpus=1, object_store_memory=80_000_000)
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    try:
        for line in sys.stdin:
            if line.strip() != "lose":
                break
            cluster.remove_node(second, allow_graceful=False)
            print("lost", flush=True)
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
