"""Rounds: training apart and merging, several times over; each round is an ordinary run in a workdir of its own.

A round starts from the model that the one before has merged, on its own part of every dataset. Round 0, the warm start, trains
on the first part of every dataset jointly.
"""

import copy
from collections.abc import Mapping
from functools import cached_property
from typing import Any

from merit_jax.core.leaves import LeafReader
from merit_jax.core.seeds import fold
from merit_jax.core.types import Dataset
from merit_jax.data.mixture_part import dataset_part
from merit_jax.pipeline.merge_inputs import merged_leaves
from merit_jax.pipeline.other_start import OtherStart
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.shared import Theta0
from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import Workdir

WARM = 0
"""Number of the warm start among the rounds."""

SPLITS = ("again", "once")
"""Values of `rounds.split`: every round splits the mixture by gradients at its own start, or all have the first one's groups."""

PARTS = ("examples", "epochs")
"""Values of `rounds.part`: a round has its part of every dataset's examples, or all of them for its part of the epochs."""


SCOPES = ("each", "whole")
"""Values of `rounds.schedule`: every round has a schedule of the learning rate, or the rounds after the warm start have one."""


def in_rounds(config: Any) -> bool:
    """Returns whether a config asks for a warm start or for more than one round."""
    return config.rounds.count > 1 or config.rounds.warm > 0


def round_numbers(config: Any) -> range:
    """Returns the numbers of a run's rounds in order: 1, 2, ..., with 0 before them where there is a warm start."""
    return range(1 - (config.rounds.warm > 0), config.rounds.count + 1)


def round_bounds(examples: int, number: int, rounds: Any) -> tuple[int, int]:
    """Returns the part of a dataset's shuffle that a round trains on, as (first, last), `last` excluded.

    The warm start has the share `rounds.warm`, rounded; the others have the rest, in equal parts or, by epochs, whole.

    Args:
        examples: Training examples of the dataset.
        number: The round.
        rounds: The section `rounds` of the config.

    Examples:
        >>> from ml_collections import ConfigDict
        >>> rounds = ConfigDict({"count": 3, "warm": 0.2, "part": "examples"})
        >>> [round_bounds(10, number, rounds) for number in range(4)]
        [(0, 2), (2, 4), (4, 7), (7, 10)]
    """
    warm = round(examples * rounds.warm)
    if number == WARM:
        return 0, warm
    rest, parts = examples - warm, rounds.count
    if rounds.part == "epochs":
        return warm, examples
    return warm + rest * (number - 1) // parts, warm + rest * number // parts


def round_run(run: Run, number: int) -> Run:
    """Returns a round as a run of its own: its workdir, config, start and data; everything compiled is shared.

    Args:
        run: The run in rounds.
        number: The round.

    Raises:
        ValueError: There is no such round, the one before is not merged, or a dataset has too few examples for so many rounds.
    """
    numbers = round_numbers(run.config)
    if number not in numbers:
        raise ValueError(f"there is no round {number}; rounds.count and rounds.warm make {numbers[0]} to {numbers[-1]}")
    if run.allow_missing:
        raise ValueError(
            "--allow_missing: a round starts from the merge of the one before, which a branch that comes late would change; "
            "finish all branches"
        )
    start = run.theta0 if number == numbers[0] else MergedStart(run.theta0, round_workdir(run.workdir, number - 1))
    config = round_config(run.config, run.workdir, number)
    return run.starting_from(start, round_datasets(run, number), config, round_workdir(run.workdir, number))


def round_workdir(workdir: Workdir, number: int) -> Workdir:
    """Returns the workdir of a round."""
    return Workdir.at(workdir.round(number))


def round_config(config: Any, workdir: Workdir, number: int) -> Any:
    """Returns the config of a round: that of an ordinary run, with a seed of its own.

    Args:
        config: That of the run in rounds.
        workdir: That of the run in rounds.
        number: The round; that of the warm start asks for joint training.
    """
    config, rounds = copy.deepcopy(config), config.rounds
    with config.unlocked():
        config.seed = fold(config.seed, "round", str(number))
        config.rounds.update({"count": 1, "warm": 0.0})
        config.merge.update(
            {"search_evaluations": 0, "search_blocks": 0}
        )  # weights are searched for the last merge alone
        if number == WARM:
            ask_for_joint(config)
        elif rounds.split == "once" and number > 1:
            config.partition.like = str(workdir.round(1))
        if number != WARM and rounds.part == "epochs":
            config.train.epochs /= rounds.count
        if number != WARM and rounds.schedule == "whole":
            config.train.schedule_span = ((number - 1) / rounds.count, number / rounds.count)
    return config


def ask_for_joint(config: Any) -> None:
    """Changes an unlocked config so that one branch is trained on all datasets, once."""
    config.partition.update({"method": "joint", "groups": 1, "like": ""})
    config.partition.update({"core": 0.0, "core_datasets": (), "softness": 0.0})
    config.merge.update({"method": "token_weighted", "options": "{}", "search_evaluations": 0, "search_blocks": 0})
    config.rounds.update({"count": 1, "warm": 0.0, "outer_rate": 1.0, "momentum": 0.0})


def round_datasets(run: Run, number: int) -> tuple[Dataset, ...]:
    """Returns the mixture as a round has it.

    Raises:
        ValueError: A dataset has no example for the round.
    """
    rounds, found = run.config.rounds, []
    for dataset in run.datasets:
        first, last = round_bounds(dataset.visit_count, number, rounds)
        if first == last:
            raise ValueError(
                f"dataset {dataset.name!r}: {dataset.visit_count} training examples are too few for "
                f"rounds.count = {rounds.count} and "
                f"rounds.warm = {rounds.warm}; every round trains on at least one of every dataset"
            )
        found.append(dataset_part(dataset, first, last, run.config.seed))
    return tuple(found)


def planned_tokens(run: Run) -> int:
    """Returns the supervised tokens that all rounds together visit in one epoch: those of the mixture, each once."""
    parts = [1] if run.config.rounds.part == "epochs" else [n for n in round_numbers(run.config) if n != WARM]
    warm = [WARM] if run.config.rounds.warm else []
    return sum(dataset.report.tokens for number in (*warm, *parts) for dataset in round_datasets(run, number))


class MergedStart(OtherStart):
    """The merged model of a workdir as the start of other branches; format, tokenizer and settings are those of theta0.

    Args:
        theta0: The checkpoint that the merged model comes from.
        workdir: Directory of the merged model.

    Raises:
        ValueError: It is not merged yet.
    """

    def __init__(self, theta0: Theta0, workdir: Workdir) -> None:
        if not workdir.merge_record.exists():
            raise ValueError(f"{workdir.root} is not merged yet; run merit run, which finishes round after round")
        super().__init__(theta0)
        self.workdir = workdir
        self.source: Mapping[str, Any] = {"merged": self._mark()}

    def _mark(self) -> str:
        """Returns a digest of the files' checksums and of the inputs of the merge."""
        return fingerprint(read_json(self.workdir.merged_sums))

    def check_unchanged(self) -> None:
        """Checks that it has not been merged again since it was opened.

        Raises:
            ValueError: It has.
        """
        if self._mark() != self.source["merged"]:
            raise ValueError(f"{self.workdir.merged} was written while the run read it; start again")

    @cached_property
    def _leaves(self) -> LeafReader:
        return merged_leaves(self.workdir)

    def leaves(self) -> LeafReader:
        """Returns a reader of single leaves; the files' checksums are compared once.

        Raises:
            ValueError: A file is missing or damaged.
        """
        return self._leaves
