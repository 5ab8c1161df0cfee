"""Evaluates a model on the tasks of lm-evaluation-harness (pip install 'merit-jax[eval]').

merit evaluate --model=runs/quickstart-text/merged/hf --suite=paper_text --tasks=hellaswag,boolq --limit=100 --out=DIR

A suite is a name from configs/suites/ or a YAML file like those. DIR gets `results.json` and, per task, `samples/TASK.jsonl`. The
starting checkpoint of a merged model is evaluated too, so that the table has theta0's scores (--theta0).
"""

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from etils import epath
from rich.markup import escape
from rich.table import Table

from merit_jax import configs
from merit_jax.core import sharding
from merit_jax.evaluation.batch_shapes import BatchShapes, doubling_buckets
from merit_jax.launch.console import app
from merit_jax.launch.console.terminal import Terminal
from merit_jax.launch.wiring import open_run
from merit_jax.launch.wiring.model_path import is_here
from merit_jax.merging.model_card import folder_name
from merit_jax.models.processing.generation_config import read_generation
from merit_jax.models.processing.tokenizer import load_tokenizer
from merit_jax.workdir.artifact_types import verify_export
from merit_jax.workdir.artifacts import read_inputs, read_json, write_json, write_text
from merit_jax.workdir.paths import ORIGIN, THETA0, Workdir, absolute

if TYPE_CHECKING:
    from merit_jax.evaluation.lm_eval_adapter import HarnessModel
    from merit_jax.evaluation.lm_eval_suites import Report, Result, Suite

MODEL = "model"
"""The name of the evaluated model among the reports; the other is theta0."""

SUITES = Path(configs.__file__).parent / "suites"
log = logging.getLogger("merit_jax")

FLAGS = flags.FLAGS


def suite_file(name: str) -> Path:
    """Finds the file of a suite, by name or path.

    Raises:
        ValueError: There is no such suite.
    """
    if (SUITES / f"{name}.yaml").is_file():
        return SUITES / f"{name}.yaml"
    if Path(name).is_file():
        return Path(name)
    known = ", ".join(sorted(file.stem for file in SUITES.glob("*.yaml")))
    raise ValueError(f"--suite={name}: no such file, and no suite of that name; known: {known}")


def open_harness_model(path: str, *, dtype: str, max_length: int | None, batch_size: int) -> "HarnessModel":
    """Opens a checkpoint as the harness's model.

    Raises:
        ValueError: The checkpoint cannot be read, is not as the export wrote it, or does not declare the length of its context.
    """
    from merit_jax.evaluation.lm_eval_adapter import HarnessModel

    if Path(path).is_dir():
        verify_export(epath.Path(path))
    pretrained = open_run.open_model(path, dtype=dtype, where="--model")
    generation, tokenizer = read_generation(pretrained.path), load_tokenizer(pretrained.path)
    longest = max_length or generation.context
    if longest is None:
        raise ValueError(f"{pretrained.path}: max_position_embeddings is not in config.json; give --max_length")
    if generation.repetition_penalty != 1:
        log.warning("repetition_penalty = %s of the checkpoint is not applied", generation.repetition_penalty)
    mesh = sharding.make_mesh()
    params = sharding.load(pretrained.leaves(), sharding.of_params(mesh, pretrained.logical_axes, pretrained.abstract))
    layout = BatchShapes(doubling_buckets(longest), batch_size, lambda batch: sharding.place_batch(batch, mesh))
    return HarnessModel(pretrained.model, params, tokenizer, layout, max_length=longest, stop=generation.stop)


def theta0_of(model: str, given: str | None) -> str | None:
    """Finds the starting checkpoint of a model.

    Args:
        model: The model.
        given: Of --theta0; None: the checkpoint that the model's `merit.json` names, if it is there; "": none. A card has the
            name of a folder alone; its path is in the workdir that the model lies in.

    Returns:
        The checkpoint; None if there is none to evaluate.
    """
    if given is not None:
        return given or None
    record = epath.Path(model) / "merit.json"
    card = read_json(record) if record.exists() else {}
    path = card.get(ORIGIN, {}).get("model") or card.get("config", {}).get("model", {}).get("path")
    if not path:
        return None
    path = next((known for known in _paths_of_theta0(model) if folder_name(known) == path), path)
    if not is_here(path):
        log.warning("the table has no theta0: %s, which %s names, is not here; give it by --theta0", path, record)
        return None
    return path


def _paths_of_theta0(model: str) -> Iterator[str]:
    """Yields the path of theta0 of every workdir that a folder lies in, the innermost first."""
    for above in absolute(model).parents:
        record = Workdir(above, above).theta0
        if record.exists():
            yield read_inputs(record)["path"]


def as_json(models: dict[str, str], reports: dict[str, "Report"], suite: "Suite") -> dict[str, Any]:
    """Returns the content of results.json: the model's scores, all that they depend on, and theta0's scores.

    Args:
        models: "theta0", where it is evaluated, and "model" -> its path.
        reports: The same -> its report.
        suite: The suite.
    """
    report, theta0 = reports[MODEL], reports.get(THETA0)
    return {
        "model": models[MODEL],
        "suite": str(suite.file),
        "limit": FLAGS.limit,
        "chat": FLAGS.chat,
        "lm_eval": report.harness,
        "mean": report.mean,
        "results": _results(report),
        **({THETA0: {"model": models[THETA0], "mean": theta0.mean, "results": _results(theta0)}} if theta0 else {}),
    }


def _results(report: "Report") -> dict[str, Any]:
    return {name: result._asdict() for name, result in report.results.items()}


def write(models: dict[str, str], reports: dict[str, "Report"], suite: "Suite", out: epath.Path) -> None:
    """Writes the results and every task's samples, those of theta0 in a folder of their own; arguments as for `as_json`."""
    from lm_eval.utils import handle_non_serializable

    for name, report in reports.items():
        folder = out / "samples" if name == MODEL else out / "samples" / name
        for task, samples in report.samples.items():
            lines = [json.dumps(sample, default=handle_non_serializable, ensure_ascii=False) for sample in samples]
            write_text(folder / f"{task}.jsonl", "".join(line + "\n" for line in lines))
    write_json(out / "results.json", as_json(models, reports, suite))


def print_report(reports: dict[str, "Report"]) -> None:
    """Prints one line per benchmark, then their mean, with a column for theta0 and the model."""
    table = Table("benchmark", "metric", "shots", "records", title_justify="left")
    for name in reports:
        table.add_column("score (%)" if name == MODEL else f"{name} (%)", justify="right")
    for name, result in reports[MODEL].results.items():
        shots = "" if result.shots is None else str(result.shots)
        scores = [_score(report.results[name]) for report in reports.values()]
        table.add_row(escape(name), result.metric, shots, str(result.records), *scores)
    table.add_section()
    table.add_row("mean", "", "", "", *(f"{100 * report.mean:.1f}" for report in reports.values()), style="bold")
    Terminal().print(table)


def _score(result: "Result") -> str:
    error = "" if result.stderr is None else f" ± {100 * result.stderr:.1f}"
    return f"{100 * result.score:.1f}{error}"


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("model", None, "Hugging Face folder, .gguf file or name of a shipped model.", required=True)
    flags.DEFINE_string(
        "theta0",
        None,
        "Checkpoint that the model was trained from, whose scores are a column too; left out: the one that the model's "
        "merit.json names, if it is there; empty: none.",
    )
    flags.DEFINE_string("suite", None, "Name of a suite in configs/suites/, or a file like them.", required=True)
    flags.DEFINE_list("tasks", [], "Some of the suite's tasks; empty: all.")
    flags.DEFINE_integer("limit", None, "Records of each task, the first ones; left out: all.", lower_bound=1)
    flags.DEFINE_string("out", None, "Folder for `results.json` and the samples; left out: the table alone.")
    flags.DEFINE_bool("chat", False, "Wrap prompts in the model's chat template.")
    flags.DEFINE_bool("run_code", False, "Allow tasks that run code which the model writes.")
    flags.DEFINE_integer("max_length", None, "Tokens of a text; left out: as the checkpoint says.", lower_bound=2)
    flags.DEFINE_integer("batch_size", 8, "Texts per forward pass.", lower_bound=1)
    flags.DEFINE_string("dtype", "auto", 'Of computation: "float32", "bfloat16" or "auto".')


def main(argv: Sequence[str]) -> None:
    """Reads the suite, then the model, and evaluates."""
    try:
        from merit_jax.evaluation import lm_eval_suites
    except ModuleNotFoundError as error:
        raise ValueError(f"{error.name} is not installed; pip install 'merit-jax[eval]'") from None
    suite = lm_eval_suites.read_suite(suite_file(FLAGS.suite), FLAGS.tasks)
    tasks = lm_eval_suites.load_tasks(suite, run_code=FLAGS.run_code)
    theta0 = theta0_of(FLAGS.model, FLAGS.theta0)
    models = {**({THETA0: theta0} if theta0 else {}), MODEL: FLAGS.model}
    reports = {}
    for name, path in models.items():
        log.info("evaluating %s, %s", name, path)
        model = open_harness_model(path, dtype=FLAGS.dtype, max_length=FLAGS.max_length, batch_size=FLAGS.batch_size)
        reports[name] = lm_eval_suites.evaluate_suite(
            model, suite, tasks, limit=FLAGS.limit, chat=FLAGS.chat, run_code=FLAGS.run_code
        )
        del model  # frees its parameters before the next are read
    if app.is_first_process():
        print_report(reports)
        if FLAGS.out:
            write(models, reports, suite, epath.Path(FLAGS.out))


if __name__ == "__main__":
    app.start(main, define_flags)
