"""A branch that is stopped anywhere and started again ends with the same bits."""

import json

import jax
import numpy as np
import pytest
from etils import epath

from merit_jax.checkpoints import branch_checkpoint
from merit_jax.checkpoints.branch_checkpoint import params_directory
from merit_jax.core import tree
from merit_jax.core.errors import UnfinishedError
from merit_jax.training.divergence import DivergedError
from merit_jax.training.loop import in_micro_batches
from merit_jax.workdir.artifacts import read_json
from tests.support import toy
from tests.support.toy_branch import STEPS, TOKENS, KilledError, result, train


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    assert train(directory)[:3] == (STEPS, TOKENS, 2 * TOKENS + sum(range(STEPS)))
    return directory


@pytest.mark.parametrize("die_at", [0, 1, 2, 5, 6])
def test_a_killed_branch_ends_bit_equal(tmp_path, undisturbed, die_at):
    with pytest.raises(KilledError):
        train(tmp_path, die_at=die_at)
    assert train(tmp_path)[:2] == (STEPS, TOKENS)
    assert result(tmp_path).tobytes() == result(undisturbed).tobytes()
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
    assert steps[-1] == STEPS


@pytest.mark.parametrize("name", ["lion", "adafactor", "muon"])
def test_the_state_of_any_optimizer_is_saved_and_restored(tmp_path, name):
    train(tmp_path / "whole", name=name)
    with pytest.raises(KilledError):
        train(tmp_path / "killed", die_at=5, name=name)
    train(tmp_path / "killed", name=name)
    assert result(tmp_path / "killed").tobytes() == result(tmp_path / "whole").tobytes()


@pytest.mark.parametrize("stop_at", [0, 1, 3, 6])
def test_a_preempted_branch_saves_there_and_then_ends_bit_equal(tmp_path, undisturbed, stop_at):
    with pytest.raises(UnfinishedError, match=f"saved at step {stop_at} of 7"):
        train(tmp_path, stop_at=stop_at, every=100, log_every=5)
    saved = sorted(int(path.name) for path in (tmp_path / "checkpoints").iterdir() if path.name.isdigit())
    assert saved == ([stop_at] if stop_at else [])
    again = train(tmp_path, every=100, log_every=5)
    assert again._replace(seconds=0) == train(undisturbed)._replace(seconds=0)
    assert result(tmp_path).tobytes() == result(undisturbed).tobytes()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert sum(line["tokens"] for line in lines) == TOKENS
    assert [line["step"] for line in lines] == sorted({5, 7} | ({stop_at} - {0}))


def test_a_finished_branch_has_the_fingerprint_of_its_parameters(undisturbed):
    leaves = {"dense/kernel": jax.numpy.asarray(result(undisturbed))}
    assert train(undisturbed).fingerprint == tree.fingerprint(leaves)


def test_a_finished_branch_is_not_trained_again(tmp_path, undisturbed):
    before = result(undisturbed).tobytes()
    finished = train(undisturbed, die_at=0)
    assert finished[:2] == (STEPS, TOKENS)
    assert result(undisturbed).tobytes() == before


def test_metrics_are_written_every_few_steps_and_at_the_end(undisturbed):
    lines = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 7]
    assert sum(line["tokens"] for line in lines) == TOKENS


def test_the_logged_loss_is_per_token(tmp_path):
    with pytest.raises(KilledError):
        train(tmp_path, die_at=1, log_every=1)
    line = json.loads((tmp_path / "metrics.jsonl").read_text())
    nll, tokens = toy.loss(toy.params(), toy.random_batch(0, rows=8))
    assert line["loss"] == pytest.approx(float(nll.sum() / tokens.sum()), abs=1e-5)


def test_the_log_says_how_far_each_step_is_from_theta0(undisturbed):
    lines = [json.loads(line) for line in (undisturbed / "metrics.jsonl").read_text().splitlines()]
    moved = np.linalg.norm(result(undisturbed).astype(np.float64) - toy.params()["dense"]["kernel"])
    assert lines[-1]["displacement"] == pytest.approx(moved, abs=1e-5)
    assert 0 < lines[0]["displacement"] != lines[-1]["displacement"]


def test_a_branch_from_other_inputs_is_refused(undisturbed):
    with pytest.raises(ValueError, match="made from another theta0, data or configuration"):
        train(undisturbed, inputs="b")


def test_a_directory_without_a_finished_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no finished checkpoint"):
        params_directory(tmp_path)


def test_micro_batches_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(ValueError, match=r"train.micro_batches = 3 does not divide train.batch_size = 8"):
        in_micro_batches(toy.random_batch(0, rows=8), 3)


def test_a_damaged_checkpoint_is_not_resumed(tmp_path):
    with pytest.raises(KilledError):
        train(tmp_path, die_at=5)
    file = max(
        (file for file in (tmp_path / "checkpoints").rglob("*") if file.is_file()), key=lambda f: f.stat().st_size
    )
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoints/4/\w+ is damaged \(since it was written, .* has changed\)"):
        train(tmp_path)


def killed_before_the_checksums(directory, monkeypatch, number):
    """Trains until right before the checksums of a checkpoint, the first, second, ..., would be written."""
    left = iter(range(number))

    def record(folder, step, *content):
        if step is not None and next(left) == number - 1:
            raise KilledError
        return write_sums(folder, step, *content)

    write_sums = branch_checkpoint._write_sums
    with monkeypatch.context() as patch:
        patch.setattr(branch_checkpoint, "_write_sums", record)
        with pytest.raises(KilledError):
            train(directory)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_checkpoint_that_was_not_recorded_is_removed_and_trained_again(tmp_path, undisturbed, monkeypatch, number):
    killed_before_the_checksums(tmp_path, monkeypatch, number)
    assert (tmp_path / "checkpoints" / str(min(2 * number, STEPS))).exists()
    assert train(tmp_path)[:2] == (STEPS, TOKENS)
    assert result(tmp_path).tobytes() == result(undisturbed).tobytes()
    assert read_json(epath.Path(tmp_path / "checksums.json"))["step"] == STEPS


def test_a_checkpoint_without_checksums_is_never_resumed(tmp_path):
    with pytest.raises(KilledError):
        train(tmp_path, die_at=5)
    (tmp_path / "checksums.json").unlink()
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"without its checksums nothing is read .*; delete .* and train the branch"
        ):
            train(tmp_path)


def poisoned(quantity, at):
    """A step that comes to NaN in the loss or in a parameter, before step number `at` ends."""

    def poison(state, metrics):
        if int(state.step) != at:
            return state, metrics
        if quantity == "loss":
            return state, metrics._replace(nll=jax.numpy.float32("nan"))
        return state._replace(leaves={k: v.at[0].set(np.inf) for k, v in state.leaves.items()}), metrics

    return poison


@pytest.mark.parametrize("quantity", ["loss", "parameter"])
@pytest.mark.parametrize(("at", "kept"), [(1, "nothing is saved"), (4, "step 2 is kept"), (7, "step 6 is kept")])
def test_training_stops_where_it_diverges_and_keeps_the_last_good_checkpoint(tmp_path, quantity, at, kept):
    finite = at - (quantity == "loss")
    last = rf" \(the last finite loss is [-\d.]+, at step {finite}\)" if finite else ""
    said = rf"train: the {quantity} .*step {at}{last}.*{kept}; lower train\.learning_rate"
    with pytest.raises(DivergedError, match=said):
        train(tmp_path, after=poisoned(quantity, at), log_every=1)
    assert train(tmp_path)[:2] == (STEPS, TOKENS)


def test_a_damaged_line_of_the_log_is_named(tmp_path):
    with pytest.raises(KilledError):
        train(tmp_path, die_at=5)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"stop": 3}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl has a damaged line"):
        train(tmp_path)
