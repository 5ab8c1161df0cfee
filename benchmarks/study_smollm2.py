"""Evidence on real text: methods and controls on BIG-bench tasks from SmolLM2-135M-Instruct, at equal tokens, over seeds.

    python -m benchmarks.study_smollm2 --data=FOLDER --out=runs/study-smollm2
    python -m benchmarks.study_smollm2 --out=runs/tiny --tasks=hyperbaton,implicatures,metaphor_boolean,fact_checker__fever \
        --methods=joint,merit1d --seeds=0 --config.mixture.max_train=16       # the whole way, small

FOLDER holds `TASK.train.jsonl` and `TASK.test.jsonl`; without the flag the 16 tasks of examples/bigbench are taken. *Skill* is
the accuracy on the test files, *retained* how far a model still says what theta0 said of prompts outside the mixture
(`benchmarks/theta0_answers.py`): the share of the tokens of theta0's answers that are the model's likeliest, and their loss.

Under --out: `study.md`, `study.json`; `theta0_answers/`; `seed-<n>/`, a root of merit experiment, with the log `seed-<n>.log`
where seeds run at the same time, and `seed-<n>.json` once it is finished, when its parameters are deleted. Killed, the same
command goes on where it was. docs/development/smollm2_study.md says how it is run on a GPU.

Cost on 48 tasks, 10,410 examples of 100 tokens on average: 1.04 M tokens a training, 9 trainings a seed, 28 M in 3 seeds,
2.3e16 FLOPs in forward and backward passes (6 for each parameter and token). At the 100 to 190 thousand tokens/s that one H200
trains this model at (docs/results/performance.md), 150 to 280 s for all seeds; gradients at theta0 add 1.4 M tokens, evaluation
about 120 s. The rest is the host's: 93 branches and 30 merges of half a gigabyte, up to 4 s for a branch and 20 s for a merge of
four, which three seeds at the same time do side by side. By this estimate 8 to 10 minutes on one H100 or H200 with 16 cores.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import flags
from etils import epath
from ml_collections import ConfigDict

from benchmarks.smollm2_seed import plan, run_seed
from benchmarks.smollm2_table import gather, measurements, table, to_json
from benchmarks.theta0_answers import PREFIX, read_prompts, write_answers
from merit_jax.core.errors import FailedError
from merit_jax.data.manifest import select
from merit_jax.launch.console import app
from merit_jax.launch.experiments.budgets import check_budgets
from merit_jax.launch.experiments.runner import parse_methods
from merit_jax.launch.wiring import open_run
from merit_jax.workdir.artifacts import read_json, write_json, write_text
from merit_jax.workdir.paths import absolute

FLAGS = flags.FLAGS

ROOT = Path(__file__).parents[1]

METHODS = ",".join(
    (
        *("joint", "wise", "examples4"),
        *("random4", "random4:partition.seed=1", "random4:partition.seed=2", "merit1d", "merit2d"),
        *("random4:partition.core=0.25", "merit2d:partition.core=0.25"),
    )
)
"""Methods and controls of one budget; theta0 is always among the models."""

ANSWERS, PART = "theta0_answers", "--part="
"""The folder of theta0's answers, which names the part of the study that makes them; the flag of a part."""


def tasks(data: Path, patterns: Sequence[str] = ()) -> dict[str, tuple[Path, Path]]:
    """Returns task -> its training and test file.

    Args:
        data: Folder of the files.
        patterns: Names or fnmatch patterns of the tasks to take; empty: all.

    Raises:
        ValueError: The folder has no training files, a task has no test file, or a pattern matches none.
    """
    found = {path.name.removesuffix(".train.jsonl"): path for path in sorted(data.glob("*.train.jsonl"))}
    if not found:
        raise ValueError(f"--data={data}: no TASK.train.jsonl there; give a folder like examples/bigbench")
    chosen = {name: (found[name], data / f"{name}.test.jsonl") for name in select(list(found), patterns, "--tasks")}
    if missing := [name for name, (_, test) in chosen.items() if not test.exists()]:
        raise ValueError(f"--data={data}: {missing[0]}.test.jsonl is missing; every task needs its test file")
    return chosen


def study_config(config: ConfigDict, root: epath.Path, found: Mapping[str, tuple[Path, Path]]) -> ConfigDict:
    """Returns the config on a study's tasks and suites, whose manifests it writes.

    Args:
        config: Sizes and settings.
        root: The study's folder.
        found: As `tasks` returns them.
    """
    suites = {f"{PREFIX}{kind}": root / ANSWERS / f"{PREFIX}{kind}.jsonl" for kind in read_prompts()}
    write_json(root / "mixture.json", {name: {"file_name": str(train.resolve())} for name, (train, _) in found.items()})
    files = {**{name: test.resolve() for name, (_, test) in found.items()}, **suites}
    write_json(root / "suites.json", {name: {"file_name": str(file)} for name, file in files.items()})
    with config.unlocked():
        config.mixture.path, config.evaluate.suites = str(root / "mixture.json"), str(root / "suites.json")
        config.evaluate.retained = config.evaluate.agreement = (f"{PREFIX}*",)
    return config


def answer(config: ConfigDict, root: epath.Path, max_new_tokens: int) -> str:
    """Lets theta0 answer the prompts and returns its fingerprint."""
    run = open_run.open_run(config, root / "theta0")
    return write_answers(run, root / ANSWERS, read_prompts(), max_new_tokens)["inputs"]["theta0"]


def report(config: ConfigDict, root: epath.Path, methods: Sequence[str], seeds: Sequence[int]) -> str:
    """Writes `study.json` and `study.md` of the seeds that are finished, and returns the table.

    Raises:
        ValueError: No seed is finished.
    """
    finished = [seed for seed in seeds if (root / f"seed-{seed}.json").exists()]
    if not finished:
        raise ValueError(f"{root}: no seed is finished; run the study again")
    results, measured = gather(config, root, methods, finished), measurements(root, finished)
    answers = read_json(root / ANSWERS / "answers.json")
    text = table(results, measured, config.frontier.retention, answers["answers"])
    about = {
        "answers": answers["answers"],
        "theta0": answers["inputs"]["theta0"],
        "methods of the study": list(methods),
    }
    write_json(root / "study.json", {"about": about, **to_json(results, measured)})
    write_text(root / "study.md", f"{text}\n")
    return text


def run_parts(parts: Sequence[str], words: Sequence[str], root: Path, together: int) -> None:
    """Runs parts of the study, each in a process of its own, some at the same time.

    Args:
        parts: Values of --part.
        words: The command line of the study, behind the name of its module.
        root: Folder of the logs; a part that runs alone writes to the terminal.
        together: Parts at the same time, which share the device's memory evenly.

    Raises:
        FailedError: A part has failed; it is named with its log.
    """
    environment = dict(os.environ)
    if together > 1:
        environment.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{0.9 / together:.2f}")

    def run(part: str) -> int:
        command = [sys.executable, "-m", "benchmarks.study_smollm2", *words, f"{PART}{part}"]
        if together == 1:
            return subprocess.run(command, env=environment).returncode
        with (root / f"{part}.log").open("a") as log:
            return subprocess.run(command, env=environment, stdout=log, stderr=subprocess.STDOUT).returncode

    with ThreadPoolExecutor(together) as pool:
        codes = dict(zip(parts, pool.map(run, parts), strict=True))
    if failed := {part: code for part, code in codes.items() if code}:
        logs = f"; see {root / next(iter(failed))}.log" if together > 1 else ""
        told = ", ".join(f"{part} (exit code {code})" for part, code in failed.items())
        raise FailedError(f"the study stopped at {told}{logs}. Run the same command again to go on")


def at_once(given: int, seeds: int) -> int:
    """Returns how many seeds run at the same time; by default all where there is an NVIDIA device, one elsewhere."""
    return min(given or (seeds if any(Path("/dev").glob("nvidia[0-9]*")) else 1), max(seeds, 1))


def define_flags() -> None:
    """Defines the command's flags."""
    app.define_config()
    flags.DEFINE_string("data", str(ROOT / "examples" / "bigbench"), "Folder of TASK.train.jsonl and TASK.test.jsonl.")
    flags.DEFINE_list("tasks", [], "Names or patterns of tasks to take; empty: all.")
    flags.DEFINE_string("theta0", "", "Checkpoint to start from, a .gguf file or a folder; empty: the config's.")
    flags.DEFINE_string("out", None, "Folder of the study.", required=True)
    flags.DEFINE_string("methods", METHODS, "Methods of equal budget, as those of merit experiment.")
    flags.DEFINE_list("seeds", ["0", "1", "2"], "Values of config.seed.")
    flags.DEFINE_integer(
        "parallel", 0, "Seeds at the same time; 0: all with an NVIDIA device, else one.", lower_bound=0
    )
    flags.DEFINE_integer("answer_tokens", 256, "Room for theta0's answer to a prompt.", lower_bound=2)
    flags.DEFINE_bool("keep_models", False, "Keep all parameters, half a gigabyte for each branch and merge.")
    flags.DEFINE_string("part", "", "What the study's own processes run: theta0_answers, or seed-<n>.")


def main(argv: Sequence[str]) -> None:
    """Runs the parts that are missing and prints the table; with --part one of them."""
    if not all(re.fullmatch(r"\d+", seed) for seed in FLAGS.seeds) or len(set(FLAGS.seeds)) < len(FLAGS.seeds):
        raise ValueError(f"--seeds={','.join(FLAGS.seeds)}: expected different whole numbers, as in --seeds=0,1,2")
    seeds, methods, root = list(map(int, FLAGS.seeds)), parse_methods(FLAGS.methods), absolute(FLAGS.out)
    config = app.config()
    if FLAGS.theta0:
        config.model.path = FLAGS.theta0
    config = study_config(config, root, tasks(Path(FLAGS.data), FLAGS.tasks))
    if FLAGS.part == ANSWERS:
        answer(config, root, FLAGS.answer_tokens)
    elif FLAGS.part:
        theta0 = read_json(root / ANSWERS / "answers.json")["inputs"]["theta0"]
        seed = int(FLAGS.part.removeprefix("seed-"))
        run_seed(config, root, methods, seed, theta0, keep=FLAGS.keep_models)
    else:
        check_budgets({name: task.config for name, task in plan(config, root, methods, 0).merged.items()})
        run_parts([ANSWERS], sys.argv[1:], Path(root), 1)
        run_parts([f"seed-{seed}" for seed in seeds], sys.argv[1:], Path(root), at_once(FLAGS.parallel, len(seeds)))
        print(report(config, root, methods, seeds))


if __name__ == "__main__":
    alone = any(word.startswith(PART) for word in sys.argv)
    app.start(main, define_flags, str(ROOT / "configs" / "smollm2_study.py"), computes=alone)
