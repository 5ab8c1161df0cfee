"""The rounds of a run as its `merge.json` has them: steps, tokens and communication of each."""

from collections.abc import Mapping
from typing import Any

from merit_jax.pipeline.merge_inputs import finished_branches
from merit_jax.pipeline.rounds import round_numbers, round_run
from merit_jax.pipeline.run import Run


def rounds_record(run: Run, size: int, merged: int) -> dict[str, Any]:
    """Returns steps and tokens of every branch of every round, and the bytes that training moves.

    A branch sends its trained parameters up at the end of a round, to be merged, and gets the merged ones down at the next one's
    start; nothing is sent in between. A warm start is of one site, which sends its result once more. Joint training on K machines
    instead sums a gradient of as many numbers in every step, of which each machine sends, and receives, 2 (K - 1) / K by a ring.

    Args:
        run: A run in rounds, all of which are trained.
        size: Bytes of the parameters that a branch has trained.
        merged: Bytes of what a merge has changed.

    Returns:
        JSON values: "trained" has an entry for each round in order; "bytes" those of one branch.
    """
    rounds = {number: round_run(run, number) for number in round_numbers(run.config)}
    done = {number: _counts(part) for number, part in rounds.items()}
    branches = len(done[run.config.rounds.count]["steps"])
    steps = sum(sum(counts["steps"]) for counts in done.values())
    return {
        "trained": [{"round": number, **counts} for number, counts in done.items()],
        "bytes": {
            "up_per_round": size,
            "down_per_round": merged,
            "up": size * run.config.rounds.count,
            "down": merged * (len(done) - 1),
            "joint_per_step": 2 * size * (branches - 1) // branches,
            "joint": 2 * size * (branches - 1) // branches * steps,
        },
    }


def _counts(part: Run) -> Mapping[str, Any]:
    """Returns steps and tokens of each branch of a round."""
    done = [entry for entry in finished_branches(part) if entry is not None]
    return {key: [entry[key] for entry in done] for key in ("steps", "tokens", "all_tokens")}
