"""Evaluates suites of lm-evaluation-harness tasks, with one metric for each. Needs the extra `eval`."""

import contextlib
import difflib
import functools
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from lm_eval.api.group import Group
from lm_eval.api.model import LM
from lm_eval.api.task import Task
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from merit_jax.core.errors import raise_if_of_machine
from merit_jax.evaluation.lm_eval_shots import exclude_question

TASK_KEYS = {"name", "metric", "shots"}
SUITE_KEYS = {"tasks", "folder"}


class Benchmark(NamedTuple):
    """One task or group of tasks of the harness.

    Attributes:
        name: Its name there.
        metric: The metric that is the score, such as "acc", or "exact_match,strict-match" where a task has several filters.
        shots: Examples in the prompt; None for the task's own number.
    """

    name: str
    metric: str
    shots: int | None = None


class Suite(NamedTuple):
    """Benchmarks whose mean is one number.

    Attributes:
        file: The file that defines it.
        benchmarks: The benchmarks, in order.
        folder: Task files (YAML) that come before the harness's own; paths in them start here. None for none.
    """

    file: Path
    benchmarks: tuple[Benchmark, ...]
    folder: Path | None = None


class Result(NamedTuple):
    """The result of one benchmark.

    Attributes:
        metric: Name of the score.
        score: Value of that metric.
        stderr: Its standard error; None where the harness gives none.
        records: Records evaluated.
        shots: Examples in each prompt; None where the tasks of a group differ.
        metrics: Every number that the harness gives, by "metric,filter".
    """

    metric: str
    score: float
    stderr: float | None
    records: int
    shots: int | None
    metrics: dict[str, float]


class Report(NamedTuple):
    """The results of a suite.

    Attributes:
        results: By benchmark.
        mean: Of the scores, every benchmark counting once.
        samples: By task: each record with its prompt, response and metrics, as the harness logs them.
        harness: Version of the harness.
    """

    results: dict[str, Result]
    mean: float
    samples: dict[str, list[dict[str, Any]]]
    harness: str


def read_suite(file: Path, only: Sequence[str] = ()) -> Suite:
    """Reads a suite: YAML with `tasks`, a list of {name, metric, shots}, and `folder`, relative to the file.

    Args:
        file: The suite.
        only: Names of the benchmarks to keep; empty for all.

    Raises:
        ValueError: It cannot be read, a key is unknown or missing, a name occurs twice, or one of `only` is not in it.
    """
    try:
        content = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise_if_of_machine(error, file)
        raise ValueError(f"{file}: no suite can be read: {error}") from None
    if not isinstance(content, dict) or not content.keys() <= SUITE_KEYS or not isinstance(content.get("tasks"), list):
        raise ValueError(f"{file}: expected `tasks`, a list, and optionally `folder`; got {content!r:.200}")
    benchmarks = tuple(_benchmark(entry, file) for entry in content["tasks"])
    names = [benchmark.name for benchmark in benchmarks]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{file}: expected one or more tasks, each once; got {names}")
    if unknown := [name for name in only if name not in names]:
        raise ValueError(f"{file}: no task {unknown[0]!r} in this suite; it has {', '.join(names)}")
    kept = tuple(benchmark for benchmark in benchmarks if not only or benchmark.name in only)
    folder = content.get("folder")
    return Suite(file, kept, None if folder is None else (file.parent / folder).resolve())


def _benchmark(entry: Any, file: Path) -> Benchmark:
    if not isinstance(entry, dict) or not {"name", "metric"} <= entry.keys() <= TASK_KEYS:
        raise ValueError(
            f"{file}: expected a task as {{name: ..., metric: ..., shots: ...}}, shots optional; got {entry!r}"
        )
    return Benchmark(**entry)


def load_tasks(suite: Suite, *, run_code: bool = False) -> list[Task | Group]:
    """Loads the harness's objects of a suite's benchmarks, with their data.

    Args:
        suite: The suite.
        run_code: Whether tasks may run code that the model writes.

    Raises:
        ValueError: A task is unknown or a mere tag, would run code without `run_code`, or its data cannot be read.
    """
    own, loaded = _own_tasks(suite), []
    for benchmark in suite.benchmarks:
        manager = own if own and benchmark.name in own.task_index else _harness_tasks()
        _check(benchmark.name, manager, suite.file, run_code)
        with contextlib.chdir(suite.folder or Path.cwd()):
            try:
                found = manager.load([benchmark.name])
            except OSError as error:
                raise_if_of_machine(error, benchmark.name)
                raise ValueError(
                    f"{suite.file}: the data of {benchmark.name} cannot be read: {error}; it comes from the Hugging Face Hub, or "
                    "from the files that the task names"
                ) from error
        for task in found["tasks"].values():
            exclude_question(task)
            if benchmark.shots is not None:
                task.set_config("num_fewshot", benchmark.shots)
        loaded.append(found.get("groups", {}).get(benchmark.name) or found["tasks"][benchmark.name])
    return loaded


def evaluate_suite(
    model: LM,
    suite: Suite,
    tasks: Sequence[Task | Group],
    *,
    limit: int | None = None,
    chat: bool = False,
    run_code: bool = False,
) -> Report:
    """Evaluates a model on all benchmarks of a suite.

    Args:
        model: The model.
        suite: The suite.
        tasks: The result of `load_tasks` for it.
        limit: Records of each task; None for all.
        chat: Whether prompts are wrapped in the model's chat template, with worked examples as earlier turns.
        run_code: Whether tasks may run code that the model writes.

    Raises:
        ValueError: A benchmark does not have its metric, or a task needs a setting that the model does not support.
    """
    found = simple_evaluate(
        model=model,
        tasks=list(tasks),
        task_manager=TaskManager(include_defaults=False),
        limit=limit,
        apply_chat_template=chat,
        confirm_run_unsafe_code=run_code,
    )
    results = {benchmark.name: _result(benchmark, found, suite.file) for benchmark in suite.benchmarks}
    mean = sum(result.score for result in results.values()) / len(results)
    return Report(results, mean, found["samples"], metadata.version("lm_eval"))


def _own_tasks(suite: Suite) -> TaskManager | None:
    """An index of the suite's own task files; its groups are of its own tasks."""
    if suite.folder is None:
        return None
    if not suite.folder.is_dir():
        raise ValueError(f"{suite.file}: folder {suite.folder} is not there")
    return TaskManager(include_path=suite.folder, include_defaults=False)


@functools.cache
def _harness_tasks() -> TaskManager:
    """An index of the harness's thousands of tasks, which takes a while to make."""
    return TaskManager()


def _check(name: str, manager: TaskManager, file: Path, run_code: bool) -> None:
    """Refuses a benchmark before its data are read."""
    if name in manager.all_tags:
        tasks = ", ".join(sorted(manager.task_index[name].tags))
        raise ValueError(f"{file}: {name!r} is a tag of several tasks and has no score; name a group or one of {tasks}")
    if name not in manager.all_tasks:
        near = difflib.get_close_matches(name, manager.all_tasks, n=5)
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise ValueError(f"{file}: unknown task {name!r}{hint} (`lm-eval ls tasks` lists the harness's)")
    if (manager.task_index[name].cfg or {}).get("unsafe_code") and not run_code:
        raise ValueError(
            f"{file}: {name} runs code that the model writes; allow it with --run_code in a place where that can do no harm, or "
            "name the other tasks with --tasks"
        )


def _result(benchmark: Benchmark, found: dict[str, Any], file: Path) -> Result:
    """Selects the benchmark's metric from all that the harness computed."""
    name, level = benchmark.name, {**found["results"], **found.get("groups", {})}[benchmark.name]
    metrics = {key: value for key, value in level.items() if "," in key and isinstance(value, int | float)}
    keys = [key for key in metrics if benchmark.metric in (key, key.partition(",")[0])]
    if len(keys) != 1:
        known = ", ".join(key for key in metrics if "_stderr," not in key)
        raise ValueError(f"{file}: {name} has {len(keys)} metrics {benchmark.metric!r}; expected one of {known}")
    metric, _, chosen = keys[0].partition(",")
    members = [task for task in found["n-samples"] if task == name or task in _members(name, found["group_subtasks"])]
    return Result(
        metric,
        float(metrics[keys[0]]),
        metrics.get(f"{metric}_stderr,{chosen}"),
        sum(found["n-samples"][task]["effective"] for task in members),
        found["n-shot"].get(name),
        metrics,
    )


def _members(group: str, children: dict[str, list[str]]) -> set[str]:
    """The groups and tasks of a group, at any depth."""
    direct = children.get(group, [])
    return {*direct, *(name for child in direct for name in _members(child, children))}
