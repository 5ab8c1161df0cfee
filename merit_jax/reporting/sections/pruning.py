"""The removal of attention heads: what was chosen, what it costs and saves, and how the scores change."""

import json
from collections.abc import Iterator

from merit_jax.reporting.blocks import Missing, Part, Section, Table, Text, Tile, Tiles, Verbatim
from merit_jax.reporting.labels import means
from merit_jax.reporting.pruning_costs import choice_in_words, cost_rows
from merit_jax.reporting.run_data import Artifacts
from merit_jax.reporting.sections.evaluation import score_table
from merit_jax.reporting.sections.head_scores import head_scores
from merit_jax.reporting.sections.pruning_curves import pruning_curves
from merit_jax.workdir.paths import MERGED
from merit_jax.workdir.pruning_files import WHOLE
from merit_jax.workdir.pruning_results import PruningResults


def pruning(artifacts: Artifacts) -> Section:
    """Returns the section of a run's report on the removal of heads of its merged model."""
    if artifacts.pruning is None:
        missing = Missing("The merged model without the attention heads that it needs least", artifacts.prune_command())
        return Section("pruning", "Pruning", (missing,))
    sections = (choice(artifacts), pruning_curves(artifacts), head_scores(artifacts))
    return Section("pruning", "Pruning", tuple(part for section in sections for part in section.parts))


def choice(artifacts: Artifacts) -> Section:
    """Returns the section on the heads that were chosen, costs and scores."""
    found = artifacts.pruning
    return Section("choice", artifacts.title, tuple(_parts(artifacts, found)) if found else ())


def _parts(artifacts: Artifacts, found: PruningResults) -> Iterator[Part]:
    notes = found.costs["notes"] if found.costs else ()
    yield Text("\n".join([choice_in_words(found.chosen), *notes]))
    shown = _with_scores(artifacts, found)
    if tiles := [*_cost_tiles(found), *_score_tiles(shown)]:
        yield Tiles(tiles)
    if "accuracies" in found.chosen:
        yield alpha_table(found)
    if found.costs:
        yield cost_table(found)
    else:
        yield Missing("Size and speed before and after", artifacts.prune_command())
    if shown.models:
        yield score_table(shown)
    else:
        words = "Scores of the whole and of the pruned model (they need held-out records, or evaluate.suites)"
        yield Missing(words, artifacts.prune_command())
    yield Verbatim("What the heads were chosen from", json.dumps(found.chosen["inputs"], indent=2))


def _with_scores(artifacts: Artifacts, found: PruningResults) -> Artifacts:
    """Returns artifacts whose models are those of the pruning; the whole model of a run is its merged one."""
    scored, whole = found.evaluation, WHOLE if artifacts.only_pruned else MERGED
    models = {
        whole if name == WHOLE else name: {key: value for key, value in model.items() if key != "displacement"}
        for name, model in scored.models.items()
    }
    return artifacts._replace(models=models, half=scored.half, retained=scored.retained)


def _score_tiles(shown: Artifacts) -> Iterator[Tile]:
    for title, scores in means(shown).items() if shown.models else ():
        whole, *others = scores
        last = scores[others[-1]]
        note = ", ".join(
            f"{name} {scores[name].value:.1f} ± {scores[name].error:.1f}" for name in (whole, *others[:-1])
        )
        yield Tile(f"{last.value:.1f} %", f"{others[-1]}, {title.partition(':')[0]} (± {last.error:.1f})", note)


def _cost_tiles(found: PruningResults) -> Iterator[Tile]:
    rows = {row[0]: row for row in cost_rows(found.costs)} if found.costs else {}
    for label, before, after, ratio in rows.values():
        if ratio and label != "bytes of the parameters":
            yield Tile(f"{ratio} ×", label, f"{before} before, {after} after")


def cost_table(found: PruningResults) -> Table:
    """Returns size and speed before and after."""
    costs = found.costs or {}
    caption = f"Size and speed, measured on {costs['device']}."
    return Table(caption, ["", "before", "after", "after / before"], list(cost_rows(costs)))


def alpha_table(found: PruningResults) -> Table:
    """Returns the accuracies by which alpha was chosen."""
    best = found.chosen["alpha"]
    rows = [
        [f"{alpha}{' (chosen)' * (float(alpha) == best)}", f"{100 * accuracy:.1f}"]
        for alpha, accuracy in found.chosen["accuracies"].items()
    ]
    caption = (
        "The weight of importance, α, by the pruned model's accuracy in per cent on the choosing half of the suites."
    )
    return Table(caption, ["α", "accuracy"], rows)
