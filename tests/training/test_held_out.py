"""A branch that is evaluated while it trains, stops early, and keeps its best state, wherever it was killed."""

import itertools
import json

import jax
import numpy as np
import optax.contrib
import pytest

from merit_jax.core import tree
from merit_jax.core.errors import UnfinishedError
from merit_jax.training.held_out import HeldOut, HeldOutLoss
from merit_jax.training.optimizer import make_optimizer
from merit_jax.training.recorder import Recording
from merit_jax.training.schedule_free import evaluated_leaves
from tests.support import toy
from tests.support.toy_branch import STEPS, TOKENS, KilledError, Loader, result, train

# By the state's distance from theta0, which grows with each step; losses of the states after 0, 1, ... steps.
SCRIPT = [9.0, 5.0, 4.0, 3.0, 3.5, 3.0, 3.25, 1.0]


def scripted(losses, patience, every=1, seen=None):
    """A recording whose held-out losses are chosen for each state, which it tells from the others by its kernel."""
    known = {}

    def measure(leaves):
        key = np.asarray(leaves["dense/kernel"]).tobytes()
        step = known.setdefault(key, order(key))
        if seen is not None:
            seen.append(step)
        return HeldOutLoss(losses[step], {"birds": losses[step], "copy": 2 * losses[step]})

    return Recording(held_out=HeldOut(measure, every, patience))


KERNELS = [np.asarray(toy.params()["dense"]["kernel"]).tobytes()]


def order(key):
    return KERNELS.index(key)


@pytest.fixture(scope="module", autouse=True)
def trajectory(tmp_path_factory):
    """The kernels after each step of the undisturbed branch."""

    def watch(state, metrics):
        KERNELS.append(np.asarray(state.leaves["dense/kernel"]).tobytes())
        return state, metrics

    train(tmp_path_factory.mktemp("whole"), after=watch)
    assert len(set(KERNELS)) == STEPS + 1


def lines(directory):
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def test_the_states_before_the_first_step_every_few_and_after_the_last_are_evaluated(tmp_path):
    seen = []
    finished = train(tmp_path, recording=scripted(SCRIPT, 0, every=3, seen=seen), log_every=2)
    assert seen == [0, 3, 6, 7]
    assert finished[:2] == (STEPS, TOKENS)
    found = {line["step"]: line.get("held_out_loss") for line in lines(tmp_path)}
    assert found == {0: 9.0, 2: None, 3: 3.0, 4: None, 6: 3.25, 7: 1.0}
    assert lines(tmp_path)[2]["held_out_by_dataset"] == {"birds": 3.0, "copy": 6.0}
    assert result(tmp_path).tobytes() == KERNELS[STEPS]


def test_training_stops_after_its_patience_and_keeps_the_best_state(tmp_path):
    """The lowest loss is that after three steps, and an equal one later is none lower: three evaluations after it, it stops."""
    seen = []
    finished = train(tmp_path, recording=scripted(SCRIPT, 3, seen=seen))
    assert seen == [0, 1, 2, 3, 4, 5, 6]
    assert (finished.steps, finished.steps_taken, finished.steps_planned) == (3, 6, STEPS)
    assert finished.tokens == sum(Loader.supervised[:3])
    assert finished.all_tokens == sum(Loader.read[:3])
    assert result(tmp_path).tobytes() == KERNELS[3]
    kept = {"dense/kernel": jax.numpy.asarray(result(tmp_path))}
    assert finished.fingerprint == tree.fingerprint(kept)
    assert train(tmp_path, die_at=0, recording=scripted(SCRIPT, 3))._replace(seconds=0) == finished._replace(seconds=0)


def test_theta0_is_not_kept_though_nothing_is_better(tmp_path):
    finished = train(tmp_path, recording=scripted([0.0, 2.0, *[3.0] * STEPS], 2))
    assert (finished.steps, finished.steps_taken) == (1, 3)
    assert result(tmp_path).tobytes() == KERNELS[1]


def test_where_patience_lasts_the_best_of_all_is_kept(tmp_path):
    finished = train(tmp_path, recording=scripted(SCRIPT, 5))
    assert (finished.steps, finished.steps_taken) == (STEPS, STEPS)
    other = train(tmp_path / "other", recording=scripted([*SCRIPT[:7], 4.0], 5))
    assert (other.steps, other.steps_taken) == (3, STEPS)
    assert result(tmp_path / "other").tobytes() == KERNELS[3]


@pytest.mark.parametrize("die_at", [0, 2, 3, 4, 5])
def test_a_killed_branch_stops_at_the_same_step_with_the_same_state(tmp_path, die_at):
    with pytest.raises(KilledError):
        train(tmp_path, die_at=die_at, recording=scripted(SCRIPT, 3))
    finished = train(tmp_path, recording=scripted(SCRIPT, 3))
    assert (finished.steps, finished.steps_taken, finished.tokens) == (3, 6, sum(Loader.supervised[:3]))
    assert result(tmp_path).tobytes() == KERNELS[3]
    steps = [line["step"] for line in lines(tmp_path)]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("stop_at", [1, 3, 4, 6])
def test_a_preempted_branch_does_too(tmp_path, stop_at):
    """A state that is saved has been evaluated, and is not evaluated again; preempted where it stops anyway, it is finished."""
    seen = []
    options = {"every": 100, "recording": scripted(SCRIPT, 3, seen=seen)}
    if stop_at == 6:
        finished = train(tmp_path, stop_at=stop_at, **options)
    else:
        with pytest.raises(UnfinishedError, match=f"saved at step {stop_at}"):
            train(tmp_path, stop_at=stop_at, **options)
        finished = train(tmp_path, **options)
    assert seen == [0, 1, 2, 3, 4, 5, 6]
    assert (finished.steps, finished.steps_taken) == (3, 6)
    assert result(tmp_path).tobytes() == KERNELS[3]


def test_without_patience_training_does_not_depend_on_the_evaluations(tmp_path):
    train(tmp_path, recording=scripted([1.0, *itertools.repeat(2.0, STEPS)], 0))
    assert result(tmp_path).tobytes() == KERNELS[STEPS]


NAME = "schedule_free_adamw"
FREE = {"name": NAME, "schedule": "constant"}
EVALUATED = evaluated_leaves(make_optimizer(NAME))


def test_a_schedule_free_branch_keeps_its_evaluated_parameters_and_resumes_its_trained_ones(tmp_path):
    states = []

    def watch(state, metrics):
        states.append(jax.tree.map(np.array, state))
        return state, metrics

    recording = Recording(evaluated=EVALUATED)
    finished = train(tmp_path / "whole", after=watch, recording=recording, **FREE)
    last = states[-1]
    expected = optax.contrib.schedule_free_eval_params(last.optimizer, last.leaves)["dense/kernel"]
    np.testing.assert_allclose(result(tmp_path / "whole"), expected, rtol=1e-6)
    assert np.abs(result(tmp_path / "whole") - last.leaves["dense/kernel"]).max() > 1e-3
    assert finished.fingerprint == tree.fingerprint({"dense/kernel": jax.numpy.asarray(result(tmp_path / "whole"))})
    with pytest.raises(KilledError):
        train(tmp_path / "killed", die_at=5, recording=recording, **FREE)
    train(tmp_path / "killed", recording=recording, **FREE)
    assert result(tmp_path / "killed").tobytes() == result(tmp_path / "whole").tobytes()
    moved = np.linalg.norm(expected.astype(np.float64) - toy.params()["dense"]["kernel"])
    assert lines(tmp_path / "whole")[-1]["displacement"] == pytest.approx(moved, abs=1e-5)


def test_the_parameters_that_are_evaluated_are_those_that_are_kept(tmp_path):
    seen = []

    def measure(leaves):
        seen.append(np.asarray(leaves["dense/kernel"]))
        return HeldOutLoss(1.0, {})

    train(tmp_path, recording=Recording(EVALUATED, HeldOut(measure, every=100)), **FREE)
    assert seen[-1].tobytes() == result(tmp_path).tobytes()
