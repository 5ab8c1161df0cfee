"""Starts branches as Ray tasks: one for each machine of a branch, which runs `merit branch` there."""

import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from merit_jax.launch.console.exit_codes import MISTAKE, UNFINISHED
from merit_jax.launch.launchers.interface import Exit, Job, JobContext
from merit_jax.launch.launchers.subprocesses import SAVE_SECONDS, spawn, stop, tail


class Options(NamedTuple):
    """Resources of each machine of a branch.

    Attributes:
        address: Of the cluster; "auto" is the one that this machine belongs to, or that RAY_ADDRESS names.
        cpus: CPUs.
        gpus: GPUs.
        resources: Other resources, as "TPU=4,spot=1".
        topology: A TPU slice for each branch, as "4x4", in place of --hosts machines; "": none. (Ray calls this interface alpha.)
        generation: The slice's TPU generation, as "v6e".
    """

    address: str = "auto"
    cpus: float = 1.0
    gpus: float = 0.0
    resources: str = ""
    topology: str = ""
    generation: str = ""


class _Running(NamedTuple):
    """A branch's tasks, and the placement group or slice reserved for them."""

    job: Job
    tasks: list[Any]
    reserved: Any


class RayTasks:
    """The launcher `ray`. It restarts nothing: a machine that dies ends the task, and the supervisor starts the branch again."""

    slots: int | None = None
    detached = False

    def __init__(self, options: Options, context: JobContext) -> None:
        self._ray = _imported()
        self._options, self._context = options, context
        self._running: dict[int, _Running] = {}
        self._mine = not self._ray.is_initialized()
        if self._mine:
            try:
                self._ray.init(address=options.address, log_to_driver=False, logging_level="warning")
            except ConnectionError as error:
                raise ValueError(
                    f"no Ray cluster at {options.address!r} ({error}); start one: ray start --head"
                ) from None
        self._needs = {"CPU": options.cpus, "GPU": options.gpus, **_amounts(options.resources)}

    def start(self, jobs: Sequence[Job]) -> None:
        """Submits the branches to Ray, which starts them as machines become free."""
        for job in jobs:
            if self._options.topology:
                self._running[job.branch] = self._on_slice(job)
            elif job.hosts > 1:
                self._running[job.branch] = self._on_hosts(job)
            else:
                self._running[job.branch] = _Running(job, [self._task(job, self._needs)], None)

    def active(self) -> set[int]:
        """Returns the branches whose tasks `ended` has not reported."""
        return set(self._running)

    def ended(self) -> list[Exit]:
        """Returns the branches all of whose tasks have ended, or one of whose has failed: the others then wait for it in vain."""
        found = [end for running in list(self._running.values()) if (end := self._end(running)) is not None]
        for end in found:
            self._release(self._running.pop(end.branch))
        return found

    def stop(self) -> None:
        """Lets every branch save."""
        for running in self._running.values():
            for task in running.tasks:
                self._ray.cancel(task)
        for running in self._running.values():
            self._ray.wait(running.tasks, num_returns=len(running.tasks), timeout=SAVE_SECONDS)
            self._release(running)
        self._running.clear()
        if self._mine:
            self._ray.shutdown()

    def _task(self, job: Job, needs: dict[str, float], join: Any = "", index: int = 0, **options: Any) -> Any:
        other = {name: amount for name, amount in needs.items() if name not in ("CPU", "GPU") and amount}
        remote = self._ray.remote(_run).options(
            num_cpus=needs.get("CPU", 0), num_gpus=needs.get("GPU", 0), resources=other, max_retries=0, **options
        )
        return remote.remote(job.words, str(self._context.folder), str(job.log), job.hosts, join, index)

    def _on_hosts(self, job: Job) -> _Running:
        """Starts a task on each of several machines; the first one's address reaches the others through Ray."""
        from ray.util.placement_group import placement_group

        needs = {name: amount for name, amount in self._needs.items() if amount}
        group = placement_group([needs] * job.hosts, strategy="STRICT_SPREAD")
        join = self._ray.remote(_address).options(num_cpus=0, **_in(group, 0)).remote()
        return _Running(job, [self._task(job, needs, join, k, **_in(group, k)) for k in range(job.hosts)], group)

    def _on_slice(self, job: Job) -> _Running:
        """Starts a task on each machine of a TPU slice, whose processes find each other."""
        from ray.util.tpu import slice_placement_group

        group = slice_placement_group(topology=self._options.topology, accelerator_version=self._options.generation)
        bundles = group.placement_group.bundle_specs
        places = [_in(group.placement_group, k) for k in range(len(bundles))]
        tasks = [self._task(job, dict(needs), "auto", **place) for needs, place in zip(bundles, places, strict=True)]
        return _Running(job, tasks, group)

    def _end(self, running: _Running) -> Exit | None:
        over, waiting = self._ray.wait(running.tasks, num_returns=len(running.tasks), timeout=0)
        ends = [self._result(running.job, task) for task in over]
        bad = next((end for end in ends if end.code not in (0, UNFINISHED)), None)
        if bad is None and waiting:
            return None
        for task in waiting:
            self._ray.cancel(task)
        return bad or next((end for end in ends if end.code), ends[0])

    def _result(self, job: Job, task: Any) -> Exit:
        try:
            return Exit(job.branch, *self._ray.get(task))
        except self._ray.exceptions.RayError as error:
            return Exit(job.branch, None, str(error).strip())

    def _release(self, running: _Running) -> None:
        if hasattr(running.reserved, "shutdown"):
            running.reserved.shutdown()
        elif running.reserved is not None:
            self._ray.util.remove_placement_group(running.reserved)


def _imported() -> Any:
    try:
        import ray
    except ImportError:
        raise ValueError("launcher ray needs Ray: pip install 'merit-jax[ray]'") from None
    return ray


def _in(group: Any, index: int) -> dict[str, Any]:
    """Returns the options of a task that runs in a bundle of a placement group."""
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    strategy = PlacementGroupSchedulingStrategy(placement_group=group, placement_group_bundle_index=index)
    return {"scheduling_strategy": strategy}


def _amounts(text: str) -> dict[str, float]:
    """Returns the resources of a text like "TPU=4,spot=1"."""
    try:
        pairs = [part.split("=") for part in text.split(",") if part]
        return {name: float(amount) for name, amount in pairs}
    except ValueError:
        raise ValueError(f"--option=resources={text}: expected NAME=AMOUNT, with commas between several") from None


def _address() -> str:
    """Returns an address of this machine, with a port that is free now."""
    import ray

    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("", 0))
        return f"{ray.util.get_node_ip_address()}:{listener.getsockname()[1]}"


def _run(words: Sequence[str], folder: str, log: str, hosts: int, join: str, index: int) -> tuple[int, str]:
    """Runs a command on the machine of a branch; it is killed with the task.

    Returns:
        (exit code, last lines of its output).
    """
    if not Path(folder).is_dir():
        return (
            MISTAKE,
            f"{socket.gethostname()} has no folder {folder}: put the repository there, or start merit cluster by ray job submit",
        )
    distributed = (
        () if not join else (f"--distributed={join}" if join == "auto" else f"--distributed={join},{hosts},{index}",)
    )
    process = spawn((*words, *distributed), Path(folder), Path(log), bound=True)
    try:
        code = process.wait()
    except BaseException:
        stop([process])
        raise
    return code, tail(Path(log))
