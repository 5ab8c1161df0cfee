"""`search.json`: merge weights that were scored by the models they give, and their scores.

Weights are chosen on the choosing half of the suites; the reporting half, on which every model is evaluated, is never scored.
Without suites they are chosen by the loss on training examples, so that held-out records remain for the report.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Float

from merit_jax.checkpoints import compatibility
from merit_jax.core import sharding, tree
from merit_jax.core.progress import bar
from merit_jax.core.seeds import fold
from merit_jax.core.types import Leaves, Params
from merit_jax.evaluation.not_finite import names
from merit_jax.evaluation.suites import mean_accuracy
from merit_jax.merging import token_weights
from merit_jax.merging.block_weights import weighted_mean
from merit_jax.merging.weight_search import SearchPoint, best_place, search_weights, weights_at
from merit_jax.pipeline.evaluators import MixtureLoss, suite_scorer
from merit_jax.pipeline.merge_inputs import Done, branch_tokens, finished_branches, merge_inputs, without_excluded
from merit_jax.pipeline.merge_record import source_of_branches
from merit_jax.pipeline.run import Run
from merit_jax.pipeline.search_settings import search_settings, searches
from merit_jax.pipeline.stage import GrowingStage
from merit_jax.workdir.artifact_types import JsonArtifact
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.lease import Lease, held

log = logging.getLogger("merit_jax")


class SearchedWeights(NamedTuple):
    """Merge weights as a search has found them.

    Attributes:
        rows: Weights of the merged branches, a row for each block of layers, as for `leaf_weights`.
        place: Number of the evaluation that found them, from 0.
        score: Their score: the mean accuracy of the suites, or minus the loss on training examples in nats per token.
        start: The score of the token weights.
    """

    rows: Float[np.ndarray, "rows k"]
    place: int
    score: float
    start: float


def searched_weights(run: Run) -> SearchedWeights:
    """Returns the best of the first `merge.search_evaluations` weights of a run's search.

    Raises:
        ValueError: The search is missing, not finished, or was made from other inputs.
    """
    wanted = run.config.merge.search_evaluations
    content = search.read(run)
    points = _points(content)[:wanted]
    if len(points) < wanted:
        raise ValueError(
            f"{run.workdir.search} has {len(points)} of {wanted} evaluations; run merit run --stages=search to go on with it"
        )
    place = best_place(points)
    rows = np.array(content["points"][place]["weights"])
    return SearchedWeights(rows, place, points[place].score, points[0].score)


def _inputs(run: Run) -> dict[str, Any]:
    made_from = [None if done is None else fingerprint(done["inputs"]) for done in _finished(run)]
    return {
        "theta0": run.theta0_fingerprint,
        "tokens": run.config.merge.tokens,
        "branches": made_from,
        **search_settings(run),
    }


def _finished(run: Run) -> list[Done | None]:
    return finished_branches(source_of_branches(run), allow_missing=run.allow_missing)


def _search(run: Run, known: Mapping[str, Any] | None, lease: Lease) -> Iterator[dict[str, Any]]:
    """Yields all points after each one that is scored."""
    cfg, entries = run.config.merge, list(known["points"]) if known else []
    missing = cfg.search_evaluations - len(entries)
    if missing <= 0:
        return
    candidates = _Candidates(run)
    found = search_weights(
        candidates.score,
        candidates.start,
        rows=cfg.search_blocks + 1,
        seed=fold(run.config.seed, "search", str(cfg.search_seed)),
        known=_points(known) if known else (),
    )
    with bar(missing, "search", "evaluation") as progress:
        for point in islice(found, missing):
            lease.check()
            weights = weights_at(point.coordinates, candidates.start)
            log.info("weights %s: score %.4f", np.round(weights, 3).tolist(), point.score)
            entries.append({**point._asdict(), "weights": weights.tolist()})
            yield {"points": entries}
            progress.update()


search = GrowingStage(
    _inputs,
    _search,
    lambda run: JsonArtifact(run.workdir.search),
    name="search",
    applies=searches,
    guard=lambda run: held(run.workdir.search_lease, "the search of merge weights"),
)
"""Searches the weights of the merge, if `merge.search_evaluations` says so."""


def _points(content: Mapping[str, Any]) -> list[SearchPoint]:
    return [SearchPoint(tuple(entry["coordinates"]), entry["score"]) for entry in content["points"]]


class _Candidates:
    """Merged models by their weights: all branches are on the devices, and no checkpoint is written.

    Attributes:
        start: The token weights.
    """

    def __init__(self, run: Run) -> None:
        finished, source = _finished(run), source_of_branches(run)
        counts = branch_tokens(source, finished, run.config.merge.tokens)
        self.start = token_weights([count for count, done in zip(counts, finished, strict=True) if done])
        if len(self.start) < 2:
            raise ValueError(
                "merge.search_evaluations: a single branch has no merge weights to search; set it to 0, or partition.groups to 2 "
                "or more"
            )
        self._branches = _place_branches(run, source, finished)
        leaves = tree.flatten(run.params)
        self._base = {path: leaves[path] for path in self._branches[0]}
        self._frozen = {path: leaf for path, leaf in leaves.items() if path not in self._base}
        self._merge = jax.jit(weighted_mean, out_shardings={path: leaf.sharding for path, leaf in self._base.items()})
        self._mean_score = _score_by_suites(run) if run.config.evaluate.suites else _score_by_loss(run)

    def params(self, weights: Float[np.ndarray, "rows k"]) -> Params:
        """Merges the branches with some weights."""
        return tree.join(self._merge(self._base, self._branches, weights.astype(np.float32)), self._frozen)

    def score(self, weights: Float[np.ndarray, "rows k"]) -> float:
        """Scores the model that some weights give."""
        with names(f"the merge with the weights {weights.tolist()}"):
            return self._mean_score(self.params(weights))


def _place_branches(run: Run, source: Run, finished: Sequence[Done | None]) -> list[Leaves]:
    """Puts the trained leaves of every finished branch on the devices, sharded as theta0's."""
    theta0, shardings = run.theta0.leaves().paths(), tree.flatten(run.shardings)
    placed: list[Leaves] = []
    for part in without_excluded(merge_inputs(source, finished), run.config.merge.exclude):
        compatibility.same_leaves(theta0, part.leaves.paths(), part.name)
        placed.append({path: sharding.place(part.leaves.read(path), shardings[path]) for path in part.leaves.paths()})
    return placed


def _score_by_suites(run: Run) -> Callable[[Params], float]:
    """Returns a function of params: the mean accuracy of the suites on their choosing half, each suite counting once."""
    scorer = suite_scorer(run, "reporting")  # the one that evaluates the reporting half later

    def score(params: Params) -> float:
        return mean_accuracy([one.accuracy for one in scorer.score(params, "choosing")["choosing"].values()])

    return score


def _score_by_loss(run: Run) -> Callable[[Params], float]:
    """Returns a function of params: minus the loss on training examples, nats per token."""
    loss = MixtureLoss(run)
    return lambda params: -loss(params)
