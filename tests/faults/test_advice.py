"""The advice after damage, obeyed to the letter, leads to a finished run of the same bits."""

import random
import re
import shutil
from pathlib import Path

import pytest

from merit_jax.pipeline.stages import run_stages
from tests.faults.campaign import DAMAGES
from tests.faults.lab import flip, truncate
from tests.faults.results import results
from tests.support import world

STAGES = ("mixture", "gradients", "conflict", "partition", "train", "merge", "export")
FILES = {
    **DAMAGES,
    "checksums of a branch": ("branches/*/checksums.json", ("merged",)),
    "checksums of the merge": ("merged/checksums.json", ("merged/hf",)),
    "record of a finished branch": ("branches/*/done.json", ("merged",)),
    "log of a branch": ("branches/*/metrics.jsonl", ("merged", "branches/0/done.json", "branches/1/done.json")),
}
"""Kind -> which files, and what is made again from them."""

ROUNDS = 2
"""Times that advice may follow on advice."""


def obey(message: str, root: Path) -> list[Path]:
    """Deletes what a message says to delete; "it" is the file that the message begins with, or names last."""
    named = [Path(word.rstrip(":,;.")) for word in re.findall(rf"{re.escape(str(root))}[^\s,;:)]*", message)]
    gone = [Path(word.rstrip(":,;.")) for word in re.findall(rf"delete ({re.escape(str(root))}[^\s,;:)]*)", message)]
    gone = gone or (named[:1] if re.search(r"delete (it|the line, or the file)\b", message) else [])
    for path in gone:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    return gone


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("act", [flip, truncate])
@pytest.mark.parametrize("kind", sorted(FILES))
def test_advice_that_is_obeyed_leads_to_a_finished_run(finished, tmp_path, kind, act):
    pattern, without = FILES[kind]
    run = world.copied(finished, tmp_path)
    root = Path(run.workdir.root)
    for part in without:
        shutil.rmtree(root / part) if (root / part).is_dir() else (root / part).unlink()
    files = sorted(path for path in root.glob(pattern) if path.is_file() and path.stat().st_size)
    if not files:
        pytest.skip(f"a run of this world leaves no {kind} without {without}")
    rng = random.Random(f"advice on {kind} {act.__name__}")
    file = rng.choice(files)
    done = act(file, rng)
    said = []
    for _ in range(ROUNDS + 1):
        try:
            run_stages(world.copied(finished, tmp_path), STAGES)
            break
        except ValueError as error:
            said.append(str(error))
            assert obey(said[-1], root), (file, done, said)
    else:
        pytest.fail(f"{file}, {done}: {said}")
    assert results(root) == results(Path(finished.workdir.root)), (file, done, said)
