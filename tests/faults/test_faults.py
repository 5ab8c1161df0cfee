"""Faults end in the bits of an undisturbed run or in one sentence; `python -m tests.faults.campaign` strikes more often."""

import random
import shutil
from pathlib import Path

import pytest

from merit_jax.pipeline.stages import run_stages
from tests.faults.campaign import CLEAR, DAMAGES, EQUAL, Campaign
from tests.faults.lab import flip, truncate
from tests.faults.results import results
from tests.support import world

STAGES = ("mixture", "gradients", "conflict", "partition", "train", "merge", "export")
QUICK = sorted(set(DAMAGES) - {"partition before training", "token cache"})


@pytest.fixture(scope="module")
def campaign(tmp_path_factory):
    return Campaign(tmp_path_factory.mktemp("faults") / "lab", seed=1)


@pytest.mark.slow
def test_a_killed_run_started_again_ends_bit_equal(campaign):
    for strike in (campaign.kill_at_operation, campaign.kill_at_time):
        outcome = strike()
        assert outcome.end == EQUAL, outcome


@pytest.mark.slow
def test_a_full_disk_is_one_sentence_and_the_run_carries_on_when_there_is_room(campaign):
    outcome = campaign.no_room_by_operation()
    assert outcome.struck in (CLEAR, "ended"), outcome
    assert outcome.end == EQUAL, outcome


@pytest.mark.slow
def test_a_read_only_workdir_is_one_sentence(campaign):
    outcome = campaign.read_only()
    assert (outcome.struck, outcome.end) == (CLEAR, EQUAL), outcome


@pytest.mark.slow
@pytest.mark.parametrize("strike", ["unreadable", "interrupted", "superseded"])
def test_what_passes_leaves_a_run_that_ends_bit_equal(campaign, strike):
    outcome = getattr(campaign, strike)()
    assert outcome.struck in (CLEAR, "ended"), outcome
    assert outcome.end == EQUAL, outcome


@pytest.mark.slow
def test_a_branch_of_another_theta0_is_one_sentence(campaign):
    outcome = campaign.mixed_branches()
    assert outcome.end == CLEAR, outcome


@pytest.mark.slow
def test_a_flipped_bit_is_never_exported_in_silence(campaign):
    for _ in range(3):
        outcome = campaign.damaged_before_export()
        assert outcome.end in (EQUAL, CLEAR), outcome


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("act", [flip, truncate])
@pytest.mark.parametrize("kind", QUICK)
def test_a_damaged_file_is_named_or_does_not_matter(finished, tmp_path, kind, act):
    pattern, gone = DAMAGES[kind]
    run = world.copied(finished, tmp_path)
    workdir = Path(run.workdir.root)
    for part in gone:
        shutil.rmtree(workdir / part) if (workdir / part).is_dir() else (workdir / part).unlink()
    files = sorted(path for path in workdir.glob(pattern) if path.is_file() and path.stat().st_size)
    rng = random.Random(f"{kind} {act.__name__}")
    file = rng.choice(files)
    done = act(file, rng)
    try:
        run_stages(run, STAGES)
    except ValueError as error:
        message = str(error)
    else:
        message = None
    equal = message is None and results(workdir) == results(Path(finished.workdir.root))
    assert equal or (message and " " in message), (file, done, message)
