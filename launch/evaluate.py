"""Evaluates a model on the tasks of lm-evaluation-harness (pip install 'merit-jax[eval]').

python -m launch.evaluate --model=runs/quickstart-text/merged/hf --suite=paper_text --tasks=hellaswag,boolq --limit=100 --out=DIR

A suite is a name from configs/suites/ or a YAML file like those. DIR gets `results.json` and, per task, `samples/TASK.jsonl`.
"""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags
from etils import epath
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import configs
from launch.console import app
from launch.wiring import open_run
from merit_jax.core import sharding
from merit_jax.evaluation.batch_shapes import BatchShapes, doubling_buckets
from merit_jax.workdir.artifacts import write_json, write_text
from models.processing.generation_config import read_generation
from models.processing.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from merit_jax.evaluation.lm_eval_adapter import HarnessModel
    from merit_jax.evaluation.lm_eval_suites import Report, Suite

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
        ValueError: The checkpoint cannot be read, or does not declare the length of its context.
    """
    from merit_jax.evaluation.lm_eval_adapter import HarnessModel

    pretrained = open_run.open_model(path, dtype=dtype)
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


def as_json(report: "Report", suite: "Suite") -> dict[str, Any]:
    """Returns the content of results.json: the scores, and all that they depend on."""
    return {
        "model": FLAGS.model,
        "suite": str(suite.file),
        "limit": FLAGS.limit,
        "chat": FLAGS.chat,
        "lm_eval": report.harness,
        "mean": report.mean,
        "results": {name: result._asdict() for name, result in report.results.items()},
    }


def write(report: "Report", suite: "Suite", out: epath.Path) -> None:
    """Writes the results and every task's samples."""
    from lm_eval.utils import handle_non_serializable

    for task, samples in report.samples.items():
        lines = [json.dumps(sample, default=handle_non_serializable, ensure_ascii=False) + "\n" for sample in samples]
        write_text(out / "samples" / f"{task}.jsonl", "".join(lines))
    write_json(out / "results.json", as_json(report, suite))


def print_report(report: "Report") -> None:
    """Prints one line per benchmark, then their mean."""
    table = Table("benchmark", "metric", "shots", "records", "score (%)", title_justify="left")
    for name, result in report.results.items():
        error = "" if result.stderr is None else f" ± {100 * result.stderr:.1f}"
        shots = "" if result.shots is None else str(result.shots)
        table.add_row(escape(name), result.metric, shots, str(result.records), f"{100 * result.score:.1f}{error}")
    table.add_section()
    table.add_row("mean", "", "", "", f"{100 * report.mean:.1f}", style="bold")
    Console().print(table)


def define_flags() -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("model", None, "Hugging Face folder, .gguf file or name of a shipped model.", required=True)
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
    model = open_harness_model(FLAGS.model, dtype=FLAGS.dtype, max_length=FLAGS.max_length, batch_size=FLAGS.batch_size)
    report = lm_eval_suites.evaluate_suite(
        model, suite, tasks, limit=FLAGS.limit, chat=FLAGS.chat, run_code=FLAGS.run_code
    )
    if app.is_first_process():
        print_report(report)
        if FLAGS.out:
            write(report, suite, epath.Path(FLAGS.out))


if __name__ == "__main__":
    app.start(main, define_flags)
