"""A question is never among its own worked examples, and a right answer is marked right."""

import json

import pytest

pytest.importorskip("lm_eval")
from merit_jax.evaluation.lm_eval_suites import load_tasks, read_suite
from tests.support import pages

ROWS = [{"q": f"question {n}", "a": f"answer {n}", "o": ["x", "y"], "id": n} for n in range(6)]
CHOICES = "output_type: multiple_choice\ndoc_to_choice: '{{o}}'\ndoc_to_target: 0\n"
WRITTEN = "output_type: generate_until\ndoc_to_target: '{{a}}'\nmetric_list: [{metric: exact_match}]\n"


def task(path, examples, split, shots=2, kind=WRITTEN, extra="", text="{{q}}"):
    """A task on `ROWS`, whose worked examples come from a split or from rows of their own."""
    for name, rows in (("test", ROWS), ("train", examples)):
        (path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path / "t.yaml").write_text(
        "task: t\ndataset_path: json\ndataset_kwargs: {data_files: {train: train.jsonl, test: test.jsonl}}\n"
        f"test_split: test\n{split}\ndoc_to_text: '{text}'\n{kind}{extra}"
    )
    (path / "suite.yaml").write_text(f"folder: .\ntasks: [{{name: t, metric: acc, shots: {shots}}}]\n")
    (found,) = load_tasks(read_suite(path / "suite.yaml"))
    found.set_fewshot_seed(1234)
    return found


def prompts(task, shots=2):
    return [task.fewshot_context(doc, shots) for doc in task.test_docs()]


COPIES = [{**row, "id": 10 + row["id"], "q": f" {row['q']} "} for row in ROWS]


@pytest.mark.parametrize("kind", [WRITTEN, CHOICES])
@pytest.mark.parametrize(
    ("examples", "split"),
    [
        (ROWS, "fewshot_split: train"),
        (COPIES, "training_split: train"),
        (ROWS, ""),
        (ROWS, "fewshot_split: test"),
        (ROWS, "fewshot_config: {sampler: first_n, split: train}"),
    ],
)
def test_the_question_is_not_among_its_examples(tmp_path, examples, split, kind):
    for doc, prompt in zip(ROWS, prompts(task(tmp_path, examples, split, kind=kind)), strict=True):
        assert prompt.count("question") == 3
        assert prompt.count(doc["q"]) == 1


def test_questions_of_one_text_are_told_apart_by_their_options(tmp_path):
    rows = [{**row, "o": [f"x{row['id']}", "y"]} for row in ROWS]
    found = task(tmp_path, rows, "fewshot_split: train", kind=CHOICES, text="which?")
    assert all(prompt.count("which?") == 3 for prompt in prompts(found))


def test_prompts_without_the_question_are_those_of_the_harness(tmp_path):
    other = [{**row, "q": f"other {row['id']}"} for row in ROWS]
    found = task(tmp_path, other, "fewshot_split: train")
    ours = prompts(found)
    del found.fewshot_context, found.sampler.sample  # the wrappers
    found.set_fewshot_seed(1234)
    assert prompts(found) == ours


def test_too_few_other_questions_are_an_error(tmp_path):
    found = task(tmp_path, [ROWS[0], COPIES[0], ROWS[1]], "fewshot_split: train")
    with pytest.raises(
        ValueError, match=r"task t: 2 worked examples .* there are 1 beside the question itself; lower `shots`"
    ):
        [found.fewshot_context(ROWS[0], 2) for _ in range(20)]


@pytest.mark.parametrize("response", ["{}", " {}", " {} ", "{}\t"])
def test_a_right_answer_of_the_shipped_task_is_right(response):
    (found,) = load_tasks(read_suite(pages.ROOT / "examples/bigbench/suite.yaml", ["pig_latin_encode"]))
    doc = found.test_docs()[0]
    for text, score in ((doc["targets"], 1.0), (doc["targets"].lower(), 1.0), (doc["targets"][:-2], 0.0)):
        assert found.process_results(doc, [response.format(text)]) == {"exact_match": score}
