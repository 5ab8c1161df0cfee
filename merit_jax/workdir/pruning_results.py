"""Reads what the removal of attention heads has left in a workdir, as far as it is of the heads that are chosen now."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from merit_jax.workdir.artifacts import read_json
from merit_jax.workdir.checksums import fingerprint
from merit_jax.workdir.paths import ORIGIN, THETA0, Workdir
from merit_jax.workdir.pruning_files import WHOLE, PruningFiles, basis_of_curves
from merit_jax.workdir.scores import read_evaluation


class Scored(NamedTuple):
    """Models that were scored on the same records.

    Attributes:
        models: Name -> entry, the whole model first; empty where none is scored.
        half: The records of each suite: "all", or "reporting".
        retained: Patterns of the suites of old skills.
    """

    models: Mapping[str, Mapping[str, Any]]
    half: str = "all"
    retained: Sequence[str] = ()


class PruningResults(NamedTuple):
    """The results of a pruning.

    Attributes:
        chosen: Content of `pruning.json`: criterion, alpha, removed, kept, scores.
        model: Name of the model that is pruned; empty where it has none of its own, as the merged model of a run.
        costs: Content of `costs.json`; None where it is missing, or of other heads.
        evaluation: The whole model, the pruned one, and the one trained again.
        curve: The whole model, and those of the curves.
    """

    chosen: Mapping[str, Any]
    model: str
    costs: Mapping[str, Any] | None
    evaluation: Scored
    curve: Scored

    @property
    def settings(self) -> Mapping[str, Any]:
        """The keys of `config.prune` that decide which heads go."""
        return self.chosen["inputs"]["prune"]


def read_pruning(root: epath.Path) -> PruningResults | None:
    """Reads the results of a pruning.

    Costs, scores and curves that an earlier choice of heads has left are passed over: they have to be made again.

    Args:
        root: Workdir of the pruning.

    Returns:
        The results; None where no heads are chosen.

    Raises:
        ValueError: A file is damaged, or was changed by hand.
    """
    files = PruningFiles(root)
    if not files.choice.exists():
        return None
    workdir, chosen = Workdir(root, root), read_json(files.choice)
    source = read_json(workdir.theta0).get("inputs", {}) if workdir.theta0.exists() else {}
    name = str(source.get(ORIGIN, source.get("path", ""))).rstrip("/").rsplit("/", 1)[-1]
    costs, mark = _of_file(files.costs), fingerprint(chosen["inputs"])
    costs = costs if costs and costs["inputs"]["pruning"] == mark else None
    scores = read_evaluation(workdir) if workdir.evaluation.exists() else {}
    evaluation = _scored(scores, chosen, lambda inputs: inputs.get("pruning") == mark)
    curve = _scored(_of_file(files.curve), chosen, lambda inputs: _is_of_curve(inputs.get("pruning", {}), chosen))
    return PruningResults(chosen, name, costs, evaluation, curve)


def _of_file(path: epath.Path) -> Any:
    return read_json(path) if path.exists() else {}


def _is_of_curve(pruning: Mapping[str, Any], chosen: Mapping[str, Any]) -> bool:
    """Returns whether a model of the curves was pruned by scores and settings of the choice."""
    same = pruning.get("basis") == basis_of_curves(chosen["inputs"])
    return same and (pruning["criterion"] != "hies" or pruning["alpha"] == chosen["alpha"])


def _scored(content: Mapping[str, Any], chosen: Mapping[str, Any], belongs: Any) -> Scored:
    """Returns the models that were made from the choice's theta0, and from what `belongs` accepts; none without another."""
    found = {
        name: model
        for name, model in content.get("models", {}).items()
        if model["inputs"][THETA0] == chosen["inputs"][THETA0] and (name == WHOLE or belongs(model["inputs"]))
    }
    if WHOLE not in found or len(found) == 1:
        return Scored({})
    inputs = content["inputs"]
    return Scored(found, inputs["half"], inputs.get("evaluate", {}).get("retained", ()))
