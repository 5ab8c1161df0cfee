"""Suites are read strictly, and name tasks that are there."""

import pytest

pytest.importorskip("lm_eval")
from merit_jax.evaluation.lm_eval_suites import Benchmark, _harness_tasks, load_tasks, read_suite
from merit_jax.launch.evaluate import SUITES, suite_file

TASK = """
task: {name}
tag: few
dataset_path: json
dataset_kwargs: {{data_files: {{test: rows.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: q
doc_to_choice: [a, b]
doc_to_target: a
{extra}
"""


def written(path, text, **extra):
    (path / "suite.yaml").write_text(text)
    for name, line in extra.items():
        (path / f"{name}.yaml").write_text(TASK.format(name=name, extra=line))
    return path / "suite.yaml"


def test_a_suite_says_what_is_asked_and_what_counts(tmp_path):
    file = written(tmp_path, "folder: .\ntasks: [{name: a, metric: acc}, {name: b, metric: acc_norm, shots: 5}]")
    suite = read_suite(file)
    assert suite.benchmarks == (Benchmark("a", "acc"), Benchmark("b", "acc_norm", 5))
    assert suite.folder == tmp_path.resolve()
    assert read_suite(file, ["b"]).benchmarks == suite.benchmarks[1:]


def test_the_papers_text_benchmarks_are_named_and_known_to_the_harness():
    suite, known = read_suite(suite_file("paper_text")), _harness_tasks()
    assert len(suite.benchmarks) == 8
    assert {benchmark.name for benchmark in suite.benchmarks} <= {*known.all_subtasks, *known.all_groups}


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("tasks: [{name: a}]", "expected a task as {name: ..., metric: ..., shots: ...}"),
        ("tasks: [{name: a, metric: acc, shot: 1}]", "got {'name': 'a', 'metric': 'acc', 'shot': 1}"),
        ("task: [a]", "expected `tasks`, a list"),
        ("tasks: []", "expected one or more tasks"),
        ("tasks: [{name: a, metric: acc}, {name: a, metric: f1}]", "each once"),
        ("tasks: [", "no suite can be read"),
    ],
)
def test_a_bad_suite_is_refused(tmp_path, text, mistake):
    with pytest.raises(ValueError, match=r"suite\.yaml") as caught:
        read_suite(written(tmp_path, text))
    assert mistake in str(caught.value)


def test_a_task_that_is_not_in_the_suite_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no task 'b' in this suite; it has a"):
        read_suite(written(tmp_path, "tasks: [{name: a, metric: acc}]"), ["b"])


def test_an_unknown_suite_lists_the_known_ones():
    with pytest.raises(ValueError, match=f"--suite=nothing: .*known: {', '.join(f.stem for f in SUITES.glob('*'))}"):
        suite_file("nothing")


def test_unknown_tasks_and_tags_and_unreadable_data_are_refused(tmp_path):
    def refused(name):
        with pytest.raises(ValueError, match=r"suite\.yaml") as caught:
            load_tasks(
                read_suite(written(tmp_path, f"folder: .\ntasks: [{{name: {name}, metric: acc}}]", one="", two=""))
            )
        return str(caught.value)

    assert "'few' is a tag of several tasks and has no score; name a group or one of one, two" in refused("few")
    assert "unknown task 'hellaswagg'; did you mean hellaswag" in refused("hellaswagg")
    assert "the data of one cannot be read" in refused("one")


def test_a_task_that_runs_code_needs_leave(tmp_path):
    file = written(tmp_path, "folder: .\ntasks: [{name: one, metric: acc}]", one="unsafe_code: true")
    with pytest.raises(ValueError, match="one runs code that the model writes; allow it with --run_code"):
        load_tasks(read_suite(file))
