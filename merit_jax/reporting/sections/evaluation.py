"""The models compared: accuracies with errors, and the effect of scaling their task vectors."""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from merit_jax.reporting.bars import Entry, dots
from merit_jax.reporting.blocks import Cell, Missing, Part, Section, Table
from merit_jax.reporting.figures import Figure, Number
from merit_jax.reporting.frontier import HALVES, frontier, kept_scores, scaled
from merit_jax.reporting.labels import Score, called, means, part_of, style
from merit_jax.reporting.run_data import Artifacts
from merit_jax.workdir.paths import THETA0

MIXTURE_LOSS = (
    "The loss on the mixture weighs datasets by the tokens of an equal number of training examples of each; the mixture's own "
    "loss weighs them by all their tokens."
)
"""What the row "loss on the mixture" is a mean of."""


def evaluation(artifacts: Artifacts) -> Section:
    """Returns the section on scores and the frontier."""
    return Section("evaluation", "Scores against the baselines", tuple(_parts(artifacts)))


def _parts(artifacts: Artifacts) -> Iterator[Part]:
    if artifacts.models:
        for place, (title, scores) in enumerate(means(artifacts).items()):
            yield score_figure(artifacts, ("scores", "retained", "skill")[place], title, scores)
    else:
        yield Missing("Scores of theta0, the baselines and the merged model", artifacts.run_command())
    if artifacts.frontier:
        yield frontier_figure(artifacts, artifacts.frontier)
        yield kept_table(artifacts, artifacts.frontier)
    else:
        command = artifacts.run_command() + " --config.frontier.scales='(0.25, 0.5, 1.0, 2.0)'"
        yield Missing("The frontier between what is retained and what is learnt (it needs evaluate.suites)", command)
    if artifacts.models:
        yield score_table(artifacts)


def score_figure(artifacts: Artifacts, name: str, title: str, scores: Mapping[str, Score]) -> Figure:
    """Returns one mean of every model, with its standard error."""
    entries = []
    for model, (value, error) in scores.items():
        colour, shape = style(artifacts, model)
        entries.append(Entry(called(artifacts, model), value, f"{value:.1f} ± {error:.1f} %", colour, shape, error))
    head, _, suites = title.partition(": ")
    chart = partial(dots, entries, "% right, ± standard error", height=80 + 24 * len(entries))
    return Figure(name, f"Accuracy, {head}", chart, f"Mean of {suites}." if suites else "")


def score_table(artifacts: Artifacts) -> Table:
    """Returns every suite, or dataset, with every model; the best of each is marked."""
    part, models = part_of(artifacts), artifacts.models
    rows: list[list[str | Cell]] = []
    for name in next(iter(models.values()))[part]:
        entries = [model[part][name] for model in models.values()]
        rows.append([f"{name} ({entries[0]['records']})", *_best([100 * entry["accuracy"] for entry in entries])])
    for title, scores in means(artifacts).items():
        rows.append([title.partition(":")[0], *_best([score.value for score in scores.values()])])
    for key, label in (("mixture_loss", "loss on the mixture"), ("displacement", "distance from theta0")):
        values = [model.get(key) for model in models.values()]
        if any(value is not None for value in values):
            rows.append([label, *("" if value is None else f"{value:.3f}" for value in values)])
    header = [f"{part.removesuffix('s')} (records)", *(called(artifacts, model) for model in models)]
    caption = "Accuracy in per cent, best bold; losses in nats per supervised token."
    if part == "suites" and artifacts.half != "all":
        caption += f" The records are the {artifacts.half} half of each suite."
    if any(model.get("mixture_loss") is not None for model in models.values()):
        caption += f" {MIXTURE_LOSS}"
    return Table(caption, header, rows)


def _best(values: list[Number]) -> list[Cell]:
    texts = [f"{value:.1f}" for value in values]
    top = max(map(float, texts))
    return [Cell(text, best=float(text) == top) for text in texts]


def frontier_figure(artifacts: Artifacts, found: Mapping[str, Any]) -> Figure:
    """Returns retained score against skill as each task vector is scaled."""
    models = dict(found["models"])
    retention = found["inputs"]["frontier"]["retention"]
    (base,) = models.pop(THETA0)["points"]
    lines = []
    for name, entry in models.items():
        lines.append(scaled(called(artifacts, name), entry["points"], *style(artifacts, name)))
    return Figure(
        "frontier",
        "What is retained against what is learnt",
        partial(frontier, base, lines, retention),
        "Each line scales a model's way from theta0 (the star) by λ; the large mark is λ = 1. Up and to the right is better. "
        + HALVES,
    )


def kept_table(artifacts: Artifacts, found: Mapping[str, Any]) -> Table:
    """Returns every model at the scale that is chosen for it, theta0 first."""
    retention = 100 * found["inputs"]["frontier"]["retention"]
    rows: list[list[str]] = []
    for name, kept in kept_scores(found["models"]).items():
        rows.append([called(artifacts, name), str(kept), f"{kept.retained:.1f}", f"{kept.share:.0f} %"])
    caption = (
        f"Skill at {retention:g} % retention, in per cent. λ is the scale of most skill among those that keep {retention:g} % of "
        f"theta0's retained score, both on the choosing half of each suite (λ = 0 is theta0); the scores are those of the other "
        "half, where the share retained may be smaller."
    )
    return Table(caption, ["model", "skill", "retained", "of theta0's"], rows)
