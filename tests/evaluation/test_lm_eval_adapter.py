"""The harness's adapter answers as the harness's own `hf` model does on the same folder, and refuses what it cannot do."""

import json

import jax
import numpy as np
import pytest

pytest.importorskip("lm_eval")
from lm_eval.api.instance import Instance
from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager
from safetensors.numpy import load_file, save_file

from merit_jax.evaluation.batch_shapes import BatchShapes, doubling_buckets
from merit_jax.evaluation.lm_eval_adapter import SHARED, HarnessModel
from merit_jax.evaluation.lm_eval_suites import evaluate_suite, load_tasks, read_suite
from merit_jax.launch.wiring import open_run
from merit_jax.models import load_pretrained
from merit_jax.models.processing.generation_config import read_generation
from merit_jax.models.processing.tokenizer import load_tokenizer
from tests.support import world

CONTEXT = 96
PROMPTS = ["say abc", "shout fgh ", "first letter of cab, then " * 6, "x", "why?\n\nno"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An exported model that tells tokens well apart."""
    root = tmp_path_factory.mktemp("model")
    source = world.checkpoint(root / "source")
    tensors = load_file(source / "model.safetensors")
    sharp = {key: tensor if "norm" in key else 4 * tensor for key, tensor in tensors.items()}
    save_file(sharp, source / "model.safetensors", metadata={"format": "pt"})
    (source / "generation_config.json").write_text(json.dumps({"eos_token_id": [2], "pad_token_id": 0}))
    opened = open_run.open_model(str(source))
    opened.export(opened.leaves().read, root / "hf", {})
    return root / "hf"


@pytest.fixture(scope="module")
def ours(folder):
    return adapter(folder)


@pytest.fixture(scope="module")
def theirs(folder):
    pytest.importorskip("torch")
    from lm_eval.models.huggingface import HFLM

    return HFLM(str(folder), device="cpu", dtype="float32", batch_size=1, max_length=CONTEXT)


def adapter(folder, context=CONTEXT):
    model, params = load_pretrained(folder)
    params, layout = jax.device_put(params, jax.devices()[0]), BatchShapes(doubling_buckets(context), 4)
    stop = read_generation(folder).stop
    return HarnessModel(model, params, load_tokenizer(folder), layout, max_length=context, stop=stop)


def asked(kind, *arguments):
    return [Instance(kind, {}, args, index) for index, args in enumerate(arguments)]


def same(ours, theirs):
    for (here, greedy), (there, expected) in zip(ours, theirs, strict=True):
        assert (here, greedy) == (pytest.approx(there, abs=1e-3), expected)


@pytest.mark.parity
def test_log_likelihoods_are_those_of_the_hf_model(ours, theirs):
    answers = [" yes", " no", " yes, sure", "!"]
    pairs = [(prompt, answer) for prompt in PROMPTS for answer in answers]
    long = [("a" * 150, "b" * 30), ("say", " long" * (SHARED // 4))]
    requests = asked("loglikelihood", *pairs, *long, ("", "alone"), ("<|im_end|>", "b"), (PROMPTS[0], " yes"))
    same(ours.loglikelihood(requests), theirs.loglikelihood(requests, disable_tqdm=True))


@pytest.mark.parity
def test_one_next_token_is_the_likeliest_and_it_is_that_of_the_hf_model(ours, theirs):
    for prompt in PROMPTS[:2]:
        requests = [((prompt, ""), ours.tok_encode(prompt), [token]) for token in range(len(ours.tokenizer))]
        answers = ours._loglikelihood_tokens(requests)
        assert sum(greedy for _, greedy in answers) == 1
        same(answers, theirs._loglikelihood_tokens(requests, disable_tqdm=True))


def written(model, prompts, room, until=()):
    requests = asked("generate_until", *((prompt, {"until": [*until], "max_gen_toks": room}) for prompt in prompts))
    return [((prompt,), text) for prompt, text in zip(prompts, model.generate_until(requests), strict=True)]


@pytest.mark.parity
def test_rolling_log_likelihoods_are_those_of_the_hf_model(ours, theirs):
    requests = asked(
        "loglikelihood_rolling", ("short",), ("a text longer than one window " * 9,), ("z" * (CONTEXT + 1),)
    )
    mine, hf = ours.loglikelihood_rolling(requests), theirs.loglikelihood_rolling(requests, disable_tqdm=True)
    np.testing.assert_allclose(mine, hf, atol=1e-3)


@pytest.mark.parity
def test_responses_are_those_of_the_hf_model(ours, theirs):
    free = [text for _, text in written(ours, PROMPTS, 70)]
    assert len(set(free)) > 1
    middle = max(free, key=len)
    assert len(middle) > 60
    for room, until in ((70, ()), (70, (middle[40:42], "never")), (5, (middle[1],))):
        mine = written(ours, PROMPTS, room, until)
        assert mine == written(theirs, PROMPTS, room, until)
        assert not any(stop in text for _, text in mine for stop in until)


@pytest.mark.parity
def test_conversations_are_rendered_as_by_the_hf_model(ours, theirs):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for history, prompt in ((talk[:1], True), (talk, False)):
        assert ours.apply_chat_template(history, prompt) == theirs.apply_chat_template(history, prompt)


def suite(path, rows, targets):
    """A suite of a multiple-choice and a generation task, on local files."""
    folder = path / "tasks"
    folder.mkdir()
    vowels = [dict(zip(("q", "a"), world.TASKS["vowel"](word), strict=True)) for word in rows]
    world.write_rows(folder / "vowel.jsonl", vowels)
    world.write_rows(folder / "upper.jsonl", [{"q": f"shout {w}", "a": t} for w, t in zip(rows, targets, strict=True)])
    base = 'dataset_path: json\ntest_split: test\nfewshot_split: test\ndoc_to_text: "{{q}}\\n"\n'
    for name, kind in (("vowel", "multiple_choice"), ("upper", "generate_until")):
        data = f"task: {name}\noutput_type: {kind}\ndataset_kwargs: {{data_files: {{test: {name}.jsonl}}}}\n"
        (folder / f"{name}.yaml").write_text(data + base + EXTRA[name])
    entries = "- {name: vowel, metric: acc, shots: 2}\n- {name: upper, metric: exact_match}\n"
    (path / "suite.yaml").write_text(f"folder: tasks\ntasks:\n{entries}")
    return path / "suite.yaml"


EXTRA = {
    "vowel": 'doc_to_choice: ["no", "yes"]\ndoc_to_target: a\n',
    "upper": 'doc_to_target: a\ngeneration_kwargs: {until: ["e"], max_gen_toks: 8}\nmetric_list: [{metric: exact_match}]\n',
}
WORDS = ["abe", "dog", "ice", "cat", "hen", "egg", "bab"]


@pytest.mark.parity
def test_scores_of_local_tasks_are_exactly_those_of_the_hf_model(ours, theirs, tmp_path):
    said = [text for _, text in written(ours, [f"shout {word}\n" for word in WORDS], 8, ("e",))]
    targets = [text if index % 2 else "nothing" for index, text in enumerate(said)]
    plan = read_suite(suite(tmp_path, WORDS, targets))
    report = evaluate_suite(ours, plan, load_tasks(plan))
    manager = TaskManager(include_defaults=False)
    hf = simple_evaluate(model=theirs, tasks=load_tasks(plan), task_manager=manager)
    assert {name: result.records for name, result in report.results.items()} == {"vowel": 7, "upper": 7}
    assert [report.results[name].shots for name in ("vowel", "upper")] == [2, 0]
    assert report.results["vowel"].score == hf["results"]["vowel"]["acc,none"]
    assert report.results["upper"].score == hf["results"]["upper"]["exact_match,none"] == 3 / 7
    assert report.mean == (report.results["vowel"].score + 3 / 7) / 2
    for mine, other in zip(report.samples["vowel"], hf["samples"]["vowel"], strict=True):
        same(mine["filtered_resps"], other["filtered_resps"])
        assert mine["arguments"] == other["arguments"]


def test_a_limit_asks_the_first_records_alone(ours, tmp_path):
    plan = read_suite(suite(tmp_path, WORDS, WORDS), ["vowel"])
    report = evaluate_suite(ours, plan, load_tasks(plan), limit=3)
    assert (report.results.keys(), report.results["vowel"].records) == ({"vowel"}, 3)
    assert len(report.samples["vowel"]) == 3


@pytest.mark.parametrize(
    ("settings", "mistake"),
    [
        ({"do_sample": True, "temperature": 0.7}, "only greedy decoding is supported"),
        ({"num_beams": 4}, "only greedy decoding is supported"),
        ({"max_gen_toks": CONTEXT}, f"max_gen_toks = {CONTEXT}: expected from 1 to {CONTEXT - 1}"),
    ],
)
def test_generation_that_is_not_greedy_or_does_not_fit_is_refused(ours, settings, mistake):
    with pytest.raises(ValueError, match=mistake):
        ours.generate_until(asked("generate_until", ("a", settings)))


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("loglikelihood", [("say ab", " yes"), ("say ab", " no")]),  # on one pass over the context
        ("loglikelihood", [("say ab", " yes")]),  # each with its context
        ("generate_until", [("say ab", {"until": ["."], "max_gen_toks": 8})]),
    ],
)
def test_likelihoods_that_are_not_finite_are_refused(folder, kind, arguments):
    model, params = load_pretrained(folder)
    params = jax.device_put(jax.tree.map(lambda leaf: leaf * np.nan, params), jax.devices()[0])
    layout = BatchShapes(doubling_buckets(CONTEXT), 4)
    broken = HarnessModel(model, params, load_tokenizer(folder), layout, max_length=CONTEXT, stop=(2,))
    with pytest.raises(
        ValueError, match=r"the text that ends in '.*say ab': .* is NaN or infinite: the model's numbers"
    ):
        getattr(broken, kind)(asked(kind, *arguments))


def test_a_continuation_longer_than_the_context_is_refused(ours):
    with pytest.raises(ValueError, match=f"at most {CONTEXT} of continuation"):
        ours.loglikelihood(asked("loglikelihood", ("a", "b" * (CONTEXT + 1))))
