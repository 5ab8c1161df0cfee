"""Branches as Ray tasks, on a real cluster of this machine, one node of which dies without warning."""

import os
import time
import warnings
from pathlib import Path

import jax
import pytest

from merit_jax.launch.launchers.interface import Exit, Job, JobContext, Launcher
from merit_jax.launch.launchers.ray_cluster import Options, RayTasks, _amounts
from merit_jax.launch.launchers.supervisor import Supervisor
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir
from tests.support import commands, world
from tests.support.commands import ends, read, same_bits, start, steps_saved, wait

with warnings.catch_warnings(action="ignore"):
    ray = pytest.importorskip("ray")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

LONGER = ("--config.train.epochs=4.0", "--config.train.batch_size=2", "--config.train.checkpoint_every=2")


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs, and two nodes with one each."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in commands.environment().items():
            patch.setenv(name, value)
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        made.pair = [made.add_node(num_cpus=1) for _ in range(2)]
        made.wait_for_nodes()
        yield made
        ray.shutdown()
        made.shutdown()


def launcher(cluster, **options):
    site = JobContext("merit-test", commands.REPOSITORY, Path("jobs"))
    return RayTasks(Options(address=cluster.address, **options), site)


def test_tasks_tell_how_their_commands_ended(cluster, tmp_path):
    tasks = launcher(cluster)
    assert isinstance(tasks, Launcher)
    code = "import sys; print('the end'); sys.exit({})"
    tasks.start([Job(k, ("-c", code.format(k)), tmp_path / f"{k}.log") for k in range(2)])
    assert tasks.active() == {0, 1}
    assert sorted(ends(tasks, 2, seconds=120)) == [Exit(0, 0, "the end"), Exit(1, 1, "the end")]
    assert tasks.active() == set()


def test_the_machines_of_a_branch_get_each_others_address(cluster, tmp_path):
    tasks = launcher(cluster)
    code = "import sys; open(sys.argv[-1].rpartition(',')[2] + '.txt', 'w').write(sys.argv[-1])"
    words = ("-c", f"import os; os.chdir({str(tmp_path)!r}); {code}")
    tasks.start([Job(0, words, tmp_path / "log", hosts=2)])
    assert ends(tasks, 1, seconds=120)[0].code == 0
    first, second = ((tmp_path / f"{k}.txt").read_text() for k in range(2))
    assert first.startswith("--distributed=")
    assert first.rpartition(",")[0] == second.rpartition(",")[0]
    assert first.endswith(",2,0")


def test_resources_are_read():
    assert _amounts("TPU=4,spot=0.5") == {"TPU": 4.0, "spot": 0.5}
    assert _amounts("") == {}
    with pytest.raises(ValueError, match="--option=resources=TPU: expected NAME=AMOUNT"):
        _amounts("TPU")


def test_a_node_dies_and_the_merge_has_the_bits_of_an_undisturbed_run(cluster, tmp_path):
    root = commands.world_at(tmp_path)
    config = (root / "config.py").read_text().replace('method="merit1d"', 'method="merit2d"')
    (root / "config.py").write_text(config)
    stages = "mixture,gradients,conflict,partition,train,merge"
    wait(start("run", root, "one", f"--stages={stages}", *LONGER))
    commands.with_partition(root, "ray")
    workdir = Workdir.at(root / "ray")
    words = ("-m", "merit_jax.launch.branch", f"--config={root}/config.py", *LONGER, f"--workdir={root / 'ray'}")
    more = (f"--compilation_cache={jax.config.jax_compilation_cache_dir}",)
    jobs = [Job(k, (*words, *more, f"--branch={k}"), Path(workdir.branch_log(k))) for k in range(4)]
    tasks = launcher(cluster)
    supervisor = Supervisor(tasks, jobs, workdir, retries=3)
    deadline, killed = time.monotonic() + 400, False
    while not supervisor.poll():
        under_way = [k for k in range(4) if steps_saved(root / "ray" / "branches" / str(k)) and not done(workdir, k)]
        if len(under_way) == 2 and not killed:
            cluster.remove_node(cluster.pair[0], allow_graceful=False)
            killed = True
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert killed
    assert not supervisor.failed
    assert sum(read_json(workdir.branch_host(k))["starts"] for k in range(4)) == 5
    wait(start("run", root, "ray", "--stages=merge", *LONGER))
    merged = [world.host(commands.OrbaxLeaves(root / name / "merged" / "params")) for name in ("one", "ray")]
    same_bits(*merged)
    assert (
        read(root / "ray" / "merged" / "merge.json")["weights"]
        == read(root / "one" / "merged" / "merge.json")["weights"]
    )


def done(workdir, k):
    return os.path.exists(workdir.branch_done(k))
