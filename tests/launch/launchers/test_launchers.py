"""Options, processes, and the files that are written for other tools."""

import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from merit_jax.launch.launchers import LAUNCHERS, local, open_launcher, options, rendered
from merit_jax.launch.launchers.interface import Exit, Job, JobContext, Launcher
from merit_jax.launch.launchers.subprocesses import spawn, stop, tail
from tests.support.commands import ends

TRICKY = "--config.train.trainable=('a b', \"$HOME\")"


def job(branch=0, code="", hosts=1, log=Path("log")):
    words = (
        ("-c", code)
        if code
        else ("-m", "merit_jax.launch.branch", "--config=c.py:merit2d", TRICKY, "--workdir=gs://b/run")
    )
    return Job(branch, (*words, f"--branch={branch}"), log, hosts)


@pytest.fixture
def site(tmp_path):
    return JobContext("merit-test", tmp_path, tmp_path / "some jobs")


def test_an_unknown_launcher_or_option_is_named_with_the_known_ones(site):
    with pytest.raises(ValueError, match=r"unknown launcher 'cloud'; known: gcloud, jobset, local"):
        open_launcher("cloud", [], site)
    with pytest.raises(ValueError, match=r"--option=gpu=1: expected KEY=VALUE; launcher local takes parallel, gpus"):
        open_launcher("local", ["gpu=1"], site)
    with pytest.raises(ValueError, match=r"--option=parallel=x: expected int"):
        open_launcher("local", ["parallel=x"], site)
    with pytest.raises(ValueError, match=r"--option=spot=1: expected true or false"):
        open_launcher("skypilot", ["spot=1"], site)


def test_options_have_the_types_of_their_defaults():
    found = options.parse(rendered.JobSet, ["image=a=b", "spot=false", "restarts=7"], "jobset")
    assert (found.image, found.spot, found.restarts, found.topology) == ("a=b", False, 7, "4x4")


@pytest.mark.parametrize("name", sorted(set(LAUNCHERS) - {"ray"}))
def test_every_launcher_fits_the_interface(name, site):
    given = {"jobset": ["image=i"], "xpk": ["image=i", "cluster=c"], "gcloud": ["zone=z"]}
    assert isinstance(open_launcher(name, given.get(name, []), site), Launcher)


def test_gpus_are_divided_evenly():
    assert local.divide_gpus("0,1,2,3", 2) == [{"CUDA_VISIBLE_DEVICES": "0,1"}, {"CUDA_VISIBLE_DEVICES": "2,3"}]
    assert local.divide_gpus("", 3) == [{}] * 3
    with pytest.raises(ValueError, match="3 GPUs cannot be divided among 2 branches; give a multiple of 2"):
        local.divide_gpus("0,1,2", 2)


def test_local_processes_see_their_gpus_and_tell_how_they_ended(tmp_path, site):
    launcher = local.Local(local.Options(parallel=2, gpus="4,5"), site)
    code = "import os, sys; print(os.environ['CUDA_VISIBLE_DEVICES']); sys.exit({})"
    launcher.start([job(k, code.format(3 * k), log=tmp_path / f"{k}.log") for k in range(2)])
    assert sorted(ends(launcher, 2)) == [Exit(0, 0, "4"), Exit(1, 3, "5")]
    assert launcher.active() == set()
    launcher.start([job(2, code.format(0), log=tmp_path / "2.log")])
    assert ends(launcher, 1) == [Exit(2, 0, "4")]


def test_local_refuses_a_branch_of_several_machines(site):
    with pytest.raises(ValueError, match="launcher local has one machine; got --hosts=2"):
        local.Local(local.Options(), site).start([job(hosts=2)])


def test_stopping_lets_processes_save_and_kills_those_that_do_not(tmp_path):
    save = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(75)); print('ready', flush=True); time.sleep(60)"
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)"
    logs = [tmp_path / "save.log", tmp_path / "deaf.log"]
    processes = [spawn(("-c", code), tmp_path, log) for code, log in zip((save, deaf), logs, strict=True)]
    deadline = time.monotonic() + 30
    while [tail(log) for log in logs] != ["ready"] * 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    stop(processes, seconds=0.5)
    assert [process.returncode for process in processes] == [75, -signal.SIGKILL]


@pytest.mark.skipif(sys.platform != "linux", reason="a service of Linux")
def test_a_bound_process_dies_with_the_one_that_started_it(tmp_path):
    parent = (
        "import pathlib, time; from merit_jax.launch.launchers.subprocesses import spawn\n"
        f"child = spawn(('-c', 'import time; time.sleep(60)'), pathlib.Path({str(tmp_path)!r}), "
        f"pathlib.Path({str(tmp_path / 'log')!r}), bound=True)\n"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    child = Path(f"/proc/{int(process.stdout.readline())}/stat")
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while child.exists() and child.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_tail_of_a_log_is_its_last_lines(tmp_path):
    (tmp_path / "log").write_text("".join(f"line {k}\n" for k in range(10000)))
    assert tail(tmp_path / "log").splitlines()[-1] == "line 9999"
    assert len(tail(tmp_path / "log").splitlines()) == 20
    assert tail(tmp_path / "nothing") == ""


def files(site, name, given, hosts=1, branches=(0, 2)):
    launcher = open_launcher(name, given, site)
    jobs = [job(branch, hosts=hosts) for branch in branches]
    launcher.start(jobs)
    assert launcher.active() == set(branches)
    assert launcher.ended() == []
    return {path.name: path.read_text() for path in site.files.iterdir()}


def words_after(text, start):
    """The words of each command in a shell script that starts so, as the shell would part them."""
    return [shlex.split(line) for line in text.splitlines() if line.startswith(start)]


def test_skypilot_gets_a_managed_job_for_each_branch(site):
    made = files(site, "skypilot", ["accelerators=A100:4", "setup=pip install ."], hosts=2)
    task = yaml.safe_load(made["skypilot.yaml"])
    assert (task["name"], task["num_nodes"], task["setup"]) == ("merit-test", 2, "pip install .\n")
    assert task["resources"]["accelerators"] == "A100:4"
    assert task["resources"]["use_spot"] is True
    assert task["resources"]["job_recovery"] == {"max_restarts_on_errors": 3, "recover_on_exit_codes": [75]}
    run = shlex.split(task["run"].splitlines()[-1])
    assert run[:4] == ["python", "-m", "merit_jax.launch.branch", "--config=c.py:merit2d"]
    assert TRICKY in run
    assert run[-2:] == ["--branch=$BRANCH", "--distributed=$FIRST:8476,$SKYPILOT_NUM_NODES,$SKYPILOT_NODE_RANK"]
    lines = words_after(made["skypilot.sh"], "sky jobs launch")
    assert [line[line.index("--env") + 1] for line in lines] == ["BRANCH=0", "BRANCH=2"]
    assert all(Path(line[-1]).read_text() == made["skypilot.yaml"] for line in lines)


def test_a_jobset_has_the_slices_machines_and_the_branchs_command(site):
    made = files(site, "jobset", ["image=i:1", "topology=2x4", "spot=false"], hosts=2)
    sets = [found for found in yaml.safe_load_all(made["jobset.yaml"]) if found]
    assert [found["metadata"]["name"] for found in sets] == ["merit-test-0", "merit-test-2"]
    job = sets[1]["spec"]["replicatedJobs"][0]["template"]["spec"]
    assert (job["parallelism"], job["completions"], job["backoffLimit"]) == (2, 2, 0)
    pod = job["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "2x4"
    assert "cloud.google.com/gke-spot" not in pod["nodeSelector"]
    (container,) = pod["containers"]
    assert container["image"] == "i:1"
    assert container["command"][:3] == ["python", "-m", "merit_jax.launch.branch"]
    assert container["command"][-2:] == ["--branch=2", "--distributed=auto"]
    assert TRICKY in container["command"]


def test_xpk_gets_a_workload_for_each_branch(site):
    made = files(site, "xpk", ["cluster=my cluster", "image=i"], hosts=4)
    lines = words_after(made["xpk.sh"], "xpk workload create")
    assert [line[4] for line in lines] == ["--workload=merit-test-0", "--workload=merit-test-2"]
    assert "--cluster=my cluster" in lines[0]
    assert "--spot" in lines[0]
    (command,) = [word.removeprefix("--command=") for word in lines[1] if word.startswith("--command=")]
    assert shlex.split(command)[-2:] == ["--branch=2", "--distributed=auto"]
    assert TRICKY in shlex.split(command)


def test_gcloud_reaches_all_machines_of_each_slice_and_tries_again(site, tmp_path):
    made = files(site, "gcloud", ["zone=z", "folder=my merit", "restarts=1"], hosts=4)
    fake = tmp_path / "gcloud"
    fake.write_text(
        f'#!/bin/bash\nfor word in "$@"; do echo "$word"; done >> {tmp_path}/$5\ntest -e {tmp_path}/$5.ok; code=$?\n'
    )
    fake.write_text(fake.read_text() + f"touch {tmp_path}/$5.ok; exit $code\n")
    fake.chmod(0o755)
    script = made["gcloud.sh"].replace("sleep 60", "sleep 0")
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    assert subprocess.run(["bash", "-c", script], env=env, check=False).returncode == 0
    words = (tmp_path / "merit-2").read_text().splitlines()
    assert len(words) == 2 * len(words[: len(words) // 2])
    assert words[:7] == ["compute", "tpus", "tpu-vm", "ssh", "merit-2", "--zone=z", "--worker=all"]
    remote = shlex.split(words[7].removeprefix("--command="))
    assert remote[:3] == ["cd", "my merit", "&&"]
    assert remote[-2:] == ["--branch=2", "--distributed=auto"]
    assert TRICKY in remote


@pytest.mark.parametrize(("name", "missing"), [("jobset", "image"), ("xpk", "cluster"), ("gcloud", "zone")])
def test_what_has_no_default_is_required(name, missing, site):
    with pytest.raises(ValueError, match=f"--option={missing}=... is missing"):
        open_launcher(name, [], site)


EMOJI = "--workdir=/runs/ü 🦊: #1 - {x} 'y' \"z\" $(w)"


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("jobset", ["image=i 🦊: x"]),
        ("skypilot", ["infra=a: b"]),
        ("xpk", ["cluster=c", "image=i"]),
        ("gcloud", ["zone=z"]),
    ],
)
def test_words_with_the_signs_of_yaml_and_shell_and_emoji_arrive_as_they_are(site, name, given):
    launcher = open_launcher(name, given, site)
    launcher.start([job()._replace(words=("-m", "merit_jax.launch.branch", EMOJI, "--branch=0"))])
    made = {path.name: path.read_text() for path in site.files.iterdir()}
    if name == "jobset":
        (task,) = [found for found in yaml.safe_load_all(made["jobset.yaml"]) if found]
        pod = task["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
        assert pod["containers"][0]["image"] == "i 🦊: x"
        words = [word.replace("$$(", "$(") for word in pod["containers"][0]["command"]]  # as Kubernetes does
    elif name == "skypilot":
        words = shlex.split(yaml.safe_load(made["skypilot.yaml"])["run"])
    else:
        (script,) = made.values()
        joined = script.replace("\\\n", " ")
        (line,) = [line for line in joined.splitlines() if "--command=" in line]
        command = next(
            word for word in shlex.split(line.partition("; do")[0].rstrip(";")) if word.startswith("--command=")
        )
        words = shlex.split(command.partition("=")[2])
    assert EMOJI in words


@pytest.mark.parametrize("name", ["jobset", "skypilot", "xpk", "gcloud", "slurm"])
@pytest.mark.parametrize("evil", ["--workdir=a\nrm -rf /", "--workdir=a\x1b[2J", "--workdir=a\u2028b"])
def test_a_word_that_would_end_its_line_is_refused_and_nothing_is_written(site, name, evil):
    given = {"jobset": ["image=i"], "xpk": ["cluster=c", "image=i"], "gcloud": ["zone=z"]}.get(name, [])
    launcher = open_launcher(name, given, site)
    with pytest.raises(
        ValueError, match=r"'--workdir=a\\.* has a control character; take it out of the path or option"
    ):
        launcher.start([job()._replace(words=("-m", "merit_jax.launch.branch", evil, "--branch=0"))])
    assert not site.files.exists()
