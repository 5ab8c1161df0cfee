"""The artifacts of a run's workdir, finished or not, read once for the whole report."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from merit_jax.conflict import repeated
from merit_jax.core.types import DatasetSlice
from merit_jax.reporting.figures import Number
from merit_jax.training.metrics_log import read_metrics
from merit_jax.workdir.artifacts import read_arrays, read_json
from merit_jax.workdir.consistency import check_records
from merit_jax.workdir.paths import DIAGNOSTICS, ORIGIN, Workdir
from merit_jax.workdir.pruning_results import PruningResults, read_pruning
from merit_jax.workdir.scores import current_frontier, read_evaluation
from merit_jax.workdir.version import refuse_older

EXAMPLE_RATIO = 0.3
"""Share of heads in the command that prunes a model which is not pruned yet."""


class Conflict(NamedTuple):
    """The content of `conflict.npz`.

    Attributes:
        names: Of the datasets.
        similarity: C, f32[T, T]; None where it was too large to keep.
        scores: Place of every dataset along each axis, f32[T, r].
        explained: Share of the variance along each axis.
        components: The axes, f32[T, r].
        repeated: Names of datasets that are duplicates, by groups; empty too where the file does not say.
    """

    names: tuple[str, ...]
    similarity: np.ndarray | None
    scores: np.ndarray
    explained: np.ndarray
    components: np.ndarray
    repeated: Sequence[tuple[str, ...]] = ()


class Branch(NamedTuple):
    """A branch, finished or not.

    Attributes:
        shares: What it trains on.
        samples: Training examples.
        tokens: Supervised tokens.
        log: Lines of its `metrics.jsonl`.
        done: Its `done.json`; None while it is not finished.
    """

    shares: tuple[DatasetSlice, ...]
    samples: int
    tokens: int
    log: tuple[Mapping[str, Any], ...]
    done: Mapping[str, Any] | None


class Artifacts(NamedTuple):
    """The content of a workdir; artifacts that are missing are None, or empty.

    Attributes:
        folder: As the user wrote it.
        config: `config.json`.
        datasets: Name -> samples, tokens, ...
        digests: Dataset -> sha256 of its files.
        norms: Dataset -> ‖g_t‖.
        conflict: Similarities and axes.
        split: `partition.method`, as it was carried out.
        branches: In order.
        sites: What `partition.json` says of the datasets' sites.
        joint: The log of joint training, if it is a baseline.
        merge: `merge.json`.
        models: Name -> scores, theta0 first.
        half: The records of each suite that the scores are of: "all", or "reporting".
        retained: Patterns of the suites of old skills.
        frontier: `frontier.json`, as far as it is of the same records and models as `models`.
        times: Stage -> seconds.
        diagnosed: Diagnostic -> seconds.
        projection: Model -> cosines of its way from theta0 with every dataset's descent direction.
        diagnostics: Name -> result.
        versions: Package -> version.
        fingerprint: Of theta0.
        origin: "OWNER/NAME@COMMIT" of theta0 of the hub; empty of another.
        unplaced: Number of skipped rows that say no dataset.
        pruning: Results of removing attention heads; None where none are chosen.
        only_pruned: It is the workdir of a pruning, without a run.
    """

    folder: str
    config: Mapping[str, Any] | None
    datasets: Mapping[str, Mapping[str, Any]]
    digests: Mapping[str, str]
    norms: Mapping[str, Number]
    conflict: Conflict | None
    split: str
    branches: tuple[Branch, ...]
    sites: Mapping[str, Any]
    joint: tuple[Mapping[str, Any], ...]
    merge: Mapping[str, Any] | None
    models: Mapping[str, Mapping[str, Any]]
    half: str
    retained: Sequence[str]
    frontier: Mapping[str, Any] | None
    times: Mapping[str, Number]
    diagnosed: Mapping[str, Number]
    projection: Mapping[str, Sequence[Number]]
    diagnostics: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, str]
    fingerprint: str
    origin: str = ""
    unplaced: int = 0
    pruning: PruningResults | None = None
    only_pruned: bool = False

    @property
    def groups(self) -> dict[str, int]:
        """The branch that trains on more than half of a dataset, for each that has one."""
        return {share.dataset: k for k, b in enumerate(self.branches) for share in b.shares if share.share > 0.5}

    @property
    def parts(self) -> dict[str, dict[int, float]]:
        """The share of each dataset that each branch trains on, of those that have some of it."""
        found: dict[str, dict[int, float]] = {}
        for k, branch in enumerate(self.branches):
            for share in branch.shares:
                found.setdefault(share.dataset, {})[k] = found.get(share.dataset, {}).get(k, 0.0) + share.share
        return found

    @property
    def rounds(self) -> int:
        """The number of rounds of a run in rounds, each of which has gradients, a split and branches of its own; else 0."""
        rounds = (self.config or {}).get("rounds", {})
        return rounds["count"] if rounds.get("count", 1) > 1 or rounds.get("warm", 0) else 0

    @property
    def no_mean(self) -> str:
        """The reason why Eqs. 2 and 11 and Thm 3.1, of weighted means, do not apply to the merge; "" where they do."""
        if not self.merge or self.merge.get("weighted_mean"):
            return ""
        if len(self.merge.get("search", {}).get("rows", ())) > 1:
            return "the weights of the merge differ between blocks of layers"
        if "weighted_mean" in self.merge:
            return f"{self.merge['method']} makes no weighted mean of the branches"
        return f"an earlier version merged and did not record its weights ({self.run_command('merge')} --overwrite)"

    @property
    def title(self) -> str:
        """The method and its starting point, in a few words."""
        if self.only_pruned and self.pruning:
            return f"{self.pruning.model or 'Merged model'}, pruned"
        if self.config is None:
            return self.folder.rstrip("/").rsplit("/", 1)[-1]
        model = str(self.config["model"]["path"]).rstrip("/").rsplit("/", 1)[-1]
        return f"{self.config['method'] or self.config['partition']['method']} from {model}"

    def run_command(self, *stages: str) -> str:
        """Returns the command that runs some stages, or that reports on the last round, which has them."""
        if self.rounds and stages and not {*stages} & {"merge", "prune", "export", "evaluate"}:
            return self._round_command
        chosen = f" --stages={','.join(stages)}" if stages else ""
        return f"merit run --config=CONFIG --workdir={self.folder}{chosen}"

    def prune_command(self, keys: str = "") -> str:
        """Returns the command that prunes the model, with `--config.prune.` before each of the keys."""
        pruning, settings = self.pruning, "".join(f" --config.prune.{key}" for key in keys.split())
        if (self.config or {}).get("prune", {}).get("ratio"):
            return self.run_command("prune") + settings
        of = f"--config=CONFIG --workdir={self.folder}"
        if self.only_pruned:
            of = f"--config=CONFIG --workdir={self.folder}/.."
            if pruning and pruning.model:
                of = f"--model=MODEL --mixture=MIXTURE --out=OUT --workdir={self.folder}"
        ratio = pruning.settings["ratio"] if pruning else EXAMPLE_RATIO
        return f"merit prune {of} --ratio={ratio:g}{settings}"

    @property
    def _round_command(self) -> str:
        return f"merit report --workdir={self.folder.rstrip('/')}/rounds/{self.rounds}"

    def diagnose_command(self, *names: str) -> str:
        """Returns the command that makes some diagnostics, or that reports on the last round."""
        if self.rounds:
            return self._round_command
        return f"merit diagnose --workdir={self.folder} --only={','.join(names)}"


def read_artifacts(workdir: Workdir, folder: str) -> Artifacts:
    """Reads a workdir, finished or not.

    Args:
        workdir: Of the run.
        folder: The same as the user wrote it; commands are shown with it.

    Raises:
        ValueError: There is nothing of a run, an earlier version wrote it, a file is damaged, or one is of another run.
    """
    of_run = any(path.exists() for path in (workdir.mixture, workdir.partition, workdir.conflict, workdir.config))
    pruning = read_pruning(workdir.pruned if of_run else workdir.root)
    if not of_run and pruning is None:
        raise ValueError(f"{workdir.root} holds no run: expected mixture.json, conflict.npz or partition.json in it")
    refuse_older(workdir)
    check_records(workdir)
    mixture, theta0 = _json(workdir.mixture) or {}, _json(workdir.theta0) or {}
    diagnostics = _diagnostics(workdir)
    evaluation = read_evaluation(workdir) if of_run and workdir.evaluation.exists() else {}
    partition = _json(workdir.partition) or {}
    card = _json(workdir.merged_hf / "merit.json") or {}
    return Artifacts(
        folder=folder,
        config=_json(workdir.config),
        datasets=mixture.get("datasets", {}),
        digests=mixture.get("inputs", {}).get("datasets", {}),
        norms={
            name: entry["norm"] for name, entry in (_json(workdir.gradient_index) or {}).get("datasets", {}).items()
        },
        conflict=_conflict(workdir.conflict),
        split=partition.get("method", ""),
        branches=tuple(_branch(workdir, k, entry) for k, entry in enumerate(partition.get("branches", ()))),
        sites=partition.get("sites", {}),
        joint=tuple(read_metrics(Workdir(workdir.baselines / "joint", workdir.shared).branch_metrics(0))),
        merge=_json(workdir.merge_record),
        models=evaluation.get("models", {}),
        half=evaluation.get("inputs", {}).get("half", "all"),
        retained=evaluation.get("inputs", {}).get("evaluate", {}).get("retained", ()),
        frontier=current_frontier(workdir),
        times=_json(workdir.times) or {},
        diagnosed={name: content["seconds"] for name, content in diagnostics.items()},
        projection=(_json(workdir.projection) or {}).get("cosines", {}),
        diagnostics={name: content["result"] for name, content in diagnostics.items()},
        versions=card.get("versions", {}),
        fingerprint=theta0.get("fingerprint", ""),
        origin=theta0.get("inputs", {}).get(ORIGIN, ""),
        unplaced=len(mixture.get("skipped", ())),
        pruning=pruning,
        only_pruned=not of_run,
    )


def _json(path: epath.Path) -> Any:
    return read_json(path) if path.exists() else None


def _conflict(path: epath.Path) -> Conflict | None:
    if not path.exists():
        return None
    arrays = read_arrays(path)
    scores, explained, components = (arrays[name] for name in ("scores", "explained", "components"))
    names = arrays["names"].tolist()
    groups = repeated(arrays["same_as"], names) if "same_as" in arrays else ()
    return Conflict(tuple(names), arrays.get("similarity"), scores, explained, components, groups)


def _branch(workdir: Workdir, index: int, entry: Mapping[str, Any]) -> Branch:
    shares = tuple(DatasetSlice(*share) for share in entry["shares"])
    log, done = tuple(read_metrics(workdir.branch_metrics(index))), _json(workdir.branch_done(index))
    return Branch(shares, entry["samples"], entry["tokens"], log, done)


def _diagnostics(workdir: Workdir) -> dict[str, Mapping[str, Any]]:
    paths = {name: workdir.diagnostic(name) for name in DIAGNOSTICS}
    return {name: read_json(path) for name, path in paths.items() if path.exists()}
