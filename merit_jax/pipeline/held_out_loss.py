"""The loss of a branch on held-out examples of its datasets, while it trains."""

import logging
from collections.abc import Callable

import jax
import numpy as np

from merit_jax.core import tree
from merit_jax.core.seeds import fold
from merit_jax.core.types import Branch, Dataset, Example, Leaves
from merit_jax.data.chat_template import encode
from merit_jax.evaluation.not_finite import NotFiniteError, names
from merit_jax.evaluation.scoring import likelihoods
from merit_jax.pipeline.evaluators import batch_shapes
from merit_jax.pipeline.run import Run
from merit_jax.training.divergence import DivergedError
from merit_jax.training.held_out import HeldOut, HeldOutLoss

log = logging.getLogger("merit_jax")


def held_out(run: Run, branch: Branch, frozen: Leaves) -> HeldOut:
    """Returns when and how the held-out loss of a branch is computed, by `train.held_out_every` and the keys that go with it.

    Args:
        run: The run.
        branch: The branch.
        frozen: The leaves that are not trained.

    Raises:
        ValueError: None of the branch's datasets has held-out rows.
    """
    cfg = run.config.train
    if not cfg.held_out_every:
        return HeldOut()
    return HeldOut(_measure(run, _examples(run, branch), frozen), cfg.held_out_every, cfg.patience)


def _examples(run: Run, branch: Branch) -> list[tuple[str, Example]]:
    """Draws the held-out examples of the branch's datasets, at most `train.held_out_examples` of each, with their dataset."""
    wanted = {share.dataset for share in branch.shares}
    datasets = [dataset for dataset in run.datasets if dataset.name in wanted]
    found = [(dataset.name, example) for dataset in datasets for example in _drawn(run, dataset)]
    if lacking := [dataset.name for dataset in datasets if not len(dataset.held_out)]:
        log.warning("without held-out rows, and so not in the held-out loss: %s", ", ".join(lacking))
    if not found:
        raise ValueError(
            f"train.held_out_every = {run.config.train.held_out_every}: none of the branch's datasets "
            f"({', '.join(sorted(wanted))}) has held-out rows; give them some (see the guide to your own data), or set it to 0"
        )
    return found


def _drawn(run: Run, dataset: Dataset) -> list[Example]:
    order = np.random.default_rng(fold(run.config.seed, "held_out_loss", dataset.name)).permutation(
        len(dataset.held_out)
    )
    chosen = [dataset.held_out[i] for i in sorted(order[: run.config.train.held_out_examples].tolist())]
    length = run.config.mixture.max_length
    return [encode(run.tokenizer, r.messages, length, tools=r.tools, where=r.where)[0] for r in chosen]


def _measure(run: Run, examples: list[tuple[str, Example]], frozen: Leaves) -> Callable[[Leaves], HeldOutLoss]:
    owners, rows = np.array([name for name, _ in examples]), [example for _, example in examples]
    loss_fn = run.shared.once("held_out_loss_fn", run.branch_loss_fn, lambda: jax.jit(run.branch_loss_fn))
    shapes = batch_shapes(run)

    def measure(leaves: Leaves) -> HeldOutLoss:
        try:
            with names(lambda place: f"dataset {owners[place]!r}, a held-out example"):
                found = likelihoods(loss_fn, tree.join(leaves, frozen), rows, shapes)
        except NotFiniteError as error:
            raise DivergedError(str(error)) from None
        sums = {name: found[owners == name].sum(axis=0) for name in dict.fromkeys(owners.tolist())}
        nll, tokens = found.sum(axis=0)
        return HeldOutLoss(float(nll / tokens), {name: float(part / count) for name, (part, count) in sums.items()})

    return measure
