"""All of MERIT on a tiny Qwen2.5-VL with pictures of several sizes: the decoder is trained, nothing else changes."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.checkpoints.readers import OrbaxLeaves, OverlayLeaves
from merit_jax.core import tree
from merit_jax.data.bucketing import calibration_examples
from merit_jax.data.chat_template import encode
from merit_jax.data.packing import RowCapacity, fill_row
from merit_jax.data.records import read_records
from merit_jax.evaluation.prompts import prompt, stop_tokens
from merit_jax.gradients.store import GradientStore
from merit_jax.models import load_pretrained
from merit_jax.models.pretrained.processor import load_processor
from merit_jax.pipeline.stages import run_stages
from merit_jax.pipeline.train_branches import train_branch
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.paths import Workdir
from tests.launch.test_commands import commands
from tests.support import tiny_qwen_vl, world
from tests.support.tiny_vision import picture


def gradients_of(run):
    return [row[:] for row in GradientStore(run.workdir.gradients).rows(run.names)]


SIZES = ((36, 56), (40, 40), (56, 36), (48, 24), (16, 16))
ANSWERS = {"colour": "red", "shape": "square", "both": "a red square", "text": "that"}
SETTINGS = {
    "mixture.max_length": 72,
    "gradients.reduction": "stride",
    "gradients.buckets": (72,),
    "gradients.image_buckets": (40,),
    "train.trainable": ("^decoder/",),
    "train.row_length": 96,
    "train.image_tokens": 60,
    "train.batch_size": 2,
    "train.epochs": 2.0,
    "train.checkpoint_every": 2,
    "evaluate.buckets": (72,),
    "evaluate.image_buckets": (40,),
}


def rows(name, count, first=0):
    """Rows of one dataset; every third is of text alone, and so is all of "text"; one has two pictures."""
    made = []
    for number in range(first, first + count):
        pictures = [] if name == "text" or number % 3 == 2 else [f"{number % len(SIZES)}.png"]
        pictures += ["4.png"] if number % 4 == 1 and pictures else []
        question = "<image>\n" * len(pictures) + ("what is this ?" if number % 2 else "what is that ?")
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": ANSWERS[name]}]
        made.append({"conversations": turns} | ({"image": pictures} if pictures else {}))
    return made


@pytest.fixture(scope="module")
def finished(tmp_path_factory, compiled):
    """A finished run; not to be written to."""
    root = tmp_path_factory.mktemp("vision")
    centred = {key: x if "norm" in key else x - np.float32(0.1) for key, x in tiny_qwen_vl.tensors().items()}
    tiny_qwen_vl.folder(root / "theta0", weights=centred)  # says different things, not one word for ever
    (root / "data").mkdir()
    for number, (height, width) in enumerate(SIZES):
        picture(root / "data" / f"{number}.png", height, width)
    for name in ANSWERS:
        world.write_rows(root / "data" / f"{name}.train.jsonl", rows(name, 9 + len(name)))
        world.write_rows(root / "data" / f"{name}.test.jsonl", rows(name, 4, first=50))
    run = world.run(root, "run", "merit1d", **SETTINGS)
    run_stages(run)
    return run


def branch(run, k):
    return OrbaxLeaves(params_directory(run.workdir.branch(k) / "checkpoints"))


def test_rows_of_images_and_of_text_are_in_one_mixture(finished):
    kinds = {dataset.name: [len(example.images) for example in dataset.train] for dataset in finished.datasets}
    assert set(kinds["both"]) == {0, 1, 2}
    assert set(kinds["text"]) == {0}
    assert all(len(example.tokens) <= 72 for dataset in finished.datasets for example in dataset.train)


def test_frozen_parts_keep_their_bits_everywhere(finished):
    theta0, exported = world.host(finished.theta0.leaves()), world.exported(finished.workdir.merged_hf)
    models = [world.host(OverlayLeaves(finished.theta0.leaves(), branch(finished, k))) for k in (0, 1)]
    models += [world.host(OrbaxLeaves(finished.workdir.merged_params)), exported]
    assert {path.split("/")[0] for path in theta0} == {"vision", "projector", "decoder"}
    for path, leaf in theta0.items():
        for model in models:
            assert (model[path].tobytes() == leaf.tobytes()) == (not path.startswith("decoder/")), path
    for model in models:
        assert model.keys() == theta0.keys()


def test_branches_hold_leaves_of_the_decoder_alone(finished):
    decoder = {path for path in finished.theta0.leaves().paths() if path.startswith("decoder/")}
    for k in (0, 1):
        assert set(branch(finished, k).paths()) == decoder
        state = Path(finished.workdir.branch(k)) / "checkpoints"
        names = {path.name for path in state.rglob("*") if "vision" in path.name or "projector" in path.name}
        assert not names


def test_gradients_are_of_the_decoder_alone(finished):
    leaves = {p: s.shape for p, s in finished.theta0.leaves().paths().items() if p.startswith("decoder/")}
    entries = sum(int((np.indices(shape).sum(axis=0) % 5 == 0).sum()) for shape in leaves.values())
    assert [len(row) for row in gradients_of(finished)] == [entries] * len(ANSWERS)


def test_a_gradient_is_of_the_pictures_too(finished):
    """The mean over a dataset's examples of plain gradients, each taken alone."""
    (dataset,) = [dataset for dataset in finished.datasets if dataset.name == "both"]
    leaves, frozen = tree.split(finished.params, ("^decoder/",))
    gradient = jax.jit(jax.grad(lambda leaves, batch: mean_loss(finished, tree.join(leaves, frozen), batch)))
    examples = calibration_examples(dataset, finished.config.gradients.examples, finished.config.seed)
    parts = [gradient(leaves, alone(finished, example, 72, 40)) for example in examples]
    mean = jax.tree.map(lambda *x: kept(np.mean(np.stack(x), axis=0)), *parts)
    row = gradients_of(finished)[finished.names.index("both")]
    expected = np.concatenate([mean[path] for path in sorted(mean)])
    np.testing.assert_allclose(row, expected, atol=1e-4 * np.abs(expected).max())


def kept(leaf):
    """The entries whose indices sum to a multiple of 5."""
    return leaf[np.indices(leaf.shape).sum(axis=0) % 5 == 0]


def mean_loss(run, params, batch):
    nll, tokens = run.loss_fn(params, batch)
    return nll[0] / tokens[0]


def alone(run, example, length, image_tokens):
    """One example as a batch."""
    return jax.tree.map(
        lambda x: np.asarray(x)[None], fill_row([example], RowCapacity(length, image_tokens, run.reader))
    )


class KilledError(Exception):
    pass


@pytest.mark.parametrize("die_at", [1, 3, 4])
def test_a_killed_branch_ends_bit_equal(finished, tmp_path, die_at):
    run = finished.derive(finished.config, Workdir.at(tmp_path / "run", finished.workdir.shared))
    run_stages(run, ("mixture", "partition"))
    step = run.train_step

    def fragile(state, frozen, batch, rate):
        if int(state.step) == die_at:
            raise KilledError
        return step(state, frozen, batch, rate)

    with pytest.raises(KilledError):
        train_branch(dataclasses.replace(run, shared=run.shared.with_value("train_step", fragile)), 0)
    assert train_branch(run, 0)
    assert read_json(run.workdir.branch_done(0))["steps"] > die_at
    resumed, undisturbed = (world.host(branch(r, 0)) for r in (run, finished))
    assert resumed.keys() == undisturbed.keys()
    assert all(resumed[path].tobytes() == undisturbed[path].tobytes() for path in resumed)


def test_the_merged_model_has_learnt_the_answers(finished):
    models = read_json(finished.workdir.evaluation)["models"]
    assert list(models["theta0"]["datasets"]) == finished.names == sorted(ANSWERS)
    assert models["merged"]["mean"]["loss"] < models["theta0"]["mean"]["loss"]


def test_conversations_with_images_are_scored(finished, tmp_path):
    folder, data = Path(finished.workdir.merged_hf), Path(finished.workdir.root).parent / "data"
    given = [f"--model={folder}", f"--data={data / 'both.test.jsonl'}", "--batch_size=3", "--max_length=72"]
    ((code, output, error),) = commands(tmp_path, "score", [[*given, "--generate", "--max_new_tokens=6"]])
    assert code == 0, error
    results, records = [json.loads(line) for line in output.splitlines()], read_records(str(data / "both.test.jsonl"))
    assert len(results) == len(records) == 4
    assert len({result["completion"] for result in results}) > 1
    model, params = load_pretrained(folder)
    tokenizer, _ = load_processor(folder, model.config)
    forward = jax.jit(lambda batch: jax.nn.log_softmax(model.unembed(params, model.hidden(params, batch))[0]))
    for result, record in zip(results, records, strict=True):
        example, _ = encode(tokenizer, record.messages, 72, where="")
        log_p = np.asarray(forward(alone(finished, example, 72, 40)), np.float64)
        expected = sum(log_p[i - 1, example.tokens[i]] for i in np.flatnonzero(example.supervised))
        assert result["tokens"] == int(example.supervised.sum())
        assert result["log_likelihood"] == pytest.approx(expected, abs=1e-3)
        assert result["completion"] == written(finished, tokenizer, forward, prompt(tokenizer, record), 6)


def written(run, tokenizer, forward, asked, most):
    """The greedy response by whole passes, without a cache."""
    ids = []
    for place in range(len(asked.tokens) - 2, len(asked.tokens) - 2 + most):
        token = int(np.argmax(forward(alone(run, asked, 72, 40))[place]))
        if token in stop_tokens(tokenizer):
            break
        ids.append(token)
        tokens = np.append(asked.tokens[:-1], np.array([token, 0], np.int32))
        asked = asked._replace(tokens=tokens, supervised=np.zeros(len(tokens), bool))
    return tokenizer.decode(ids, skip_special_tokens=True)
