"""Ranks and replicas on a Ray cluster of two small nodes, started once: the tokens of one process, and a clean end."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.test_parallel import PARAMS, PROMPTS, TIGHT, answers
from tinyllm.llm import LLM
from tinyllm.parallel.executors import EngineDeadError


def test_without_ray_the_way_out_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'tinyllm-book\[ray\]'"):
        LLM("fable", distributed_executor_backend="ray")
    with pytest.raises(ValueError, match="'slurm' but must be 'mp' or 'ray'"):
        LLM("fable", distributed_executor_backend="slurm")


def children():
    """What this process has started and not waited for."""
    mine = subprocess.run(["ps", "-o", "pid=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return set(map(int, mine.stdout.split()))


def two_nodes(tries=5):
    """A cluster of two nodes with two CPUs each.

    A node of Ray's ends itself when the two Python processes that help it are not there after 15 seconds, and no
    setting changes that. Where others use the machine, they may take longer: then all begins again.
    """
    from ray.cluster_utils import Cluster

    before = children()
    for left in reversed(range(tries)):
        cluster = Cluster()
        try:
            for kind in ({"include_dashboard": False}, {}):
                cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20, **kind)
            return cluster
        except Exception:  # Ray has no narrower one for "timed out during startup"
            cluster.shutdown()
            for pid in children() - before:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if not left:
                raise


@pytest.fixture(scope="module")
def cluster(root):
    """Two nodes of this machine with two CPUs each; gone afterwards, with all that they have started."""
    ray = pytest.importorskip("ray")
    before, paths = set(os.listdir("/dev/shm")), os.environ.get("PYTHONPATH", "")
    os.environ.update(PYTHONPATH=os.pathsep.join(filter(None, (str(root), paths))), OMP_NUM_THREADS="1")
    cluster = two_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    yield ray
    ray.shutdown()
    cluster.shutdown()
    os.environ["PYTHONPATH"] = paths
    assert set(os.listdir("/dev/shm")) <= before


def settled(ray, cpus=4.0, within=30.0):
    """Whether everything that was reserved is given back, or will be soon."""
    end = time.monotonic() + within
    while ray.available_resources().get("CPU") != cpus and time.monotonic() < end:
        time.sleep(0.05)
    return ray.available_resources().get("CPU") == cpus


def test_ranks_and_replicas_on_a_cluster(cluster):
    alone = answers(LLM("fable", **TIGHT))
    node_of = lambda _: __import__("ray").get_runtime_context().get_node_id()  # noqa: E731 (travels by value)
    pid_of = lambda _: __import__("os").getpid()  # noqa: E731

    # what fits on no node is refused at once
    with pytest.raises(RuntimeError, match="a stage of 3 ranks needs 3 CPUs on one machine"):
        from tinyllm.parallel.ray_cluster import reserve_bundles

        reserve_bundles(cluster, {"CPU": 1}, 3, 1.0)

    # two ranks that cut the layers between them, on one node; then one of them dies
    llm = LLM("fable", tensor_parallel_size=2, distributed_executor_backend="ray", **TIGHT)
    executor = llm.core.executor
    nodes = cluster.get([w.__ray_call__.remote(node_of) for w in executor.workers])
    assert len(nodes) == 2 and len(set(nodes)) == 1
    assert answers(llm) == alone
    stream = llm.stream("Once upon a time", PARAMS[0])
    next(stream)
    os.kill(cluster.get(executor.workers[1].__ray_call__.remote(pid_of)), signal.SIGKILL)
    with pytest.raises(EngineDeadError, match="rank 1 of 2 has died"):
        for _ in stream:
            pass
    with pytest.raises(EngineDeadError, match="make a new one"):
        llm.generate("Again", use_tqdm=False)
    assert settled(cluster)

    # two replicas on two nodes; then one of them dies, and its requests go on at the other
    llm = LLM("fable", data_parallel_size=2, distributed_executor_backend="ray", **TIGHT)
    transports = dict(llm.core.transports)
    assert len(set(cluster.get([w.actor.__ray_call__.remote(node_of) for w in transports.values()]))) == 2
    assert answers(llm) == alone
    pids = {i: cluster.get(w.actor.__ray_call__.remote(pid_of)) for i, w in transports.items()}
    parents = [llm.engine.process_inputs(*one) for one in zip(PROMPTS, PARAMS, strict=True)]
    llm.engine.add_requests(parents)
    while not all(parent.num_tokens for parent in parents[:2]):
        llm.engine.step()
    os.kill(pids[0], signal.SIGKILL)
    while not all(parent.finished for parent in parents):
        llm.engine.step()
    assert [[r.output_token_ids for r in parent.requests] for parent in parents] == alone
    assert list(llm.core.transports) == [1]
    llm.engine.abort_requests(parents)
    del llm
    assert settled(cluster)
    assert not any(Path(f"/proc/{pid}").exists() and "ray::Replica" in Path(f"/proc/{pid}/cmdline").read_text()
                   for pid in pids.values())  # fmt: skip
