"""The models beside one another: accuracies with errors, and what scaling their task vectors does."""

from collections.abc import Iterator, Mapping

from merit_jax.reporting.blocks import Cell, Missing, Part, Section, Table
from merit_jax.reporting.figures import Axis, Chart, Line, Number, Points, Span
from merit_jax.reporting.labels import Score, called, means, part_of, style
from merit_jax.reporting.run_data import Artifacts
from merit_jax.workdir.paths import THETA0


def evaluation(artifacts: Artifacts) -> Section:
    """Scores, and the frontier."""
    return Section("evaluation", "Scores against the baselines", tuple(_parts(artifacts)))


def _parts(artifacts: Artifacts) -> Iterator[Part]:
    if artifacts.models:
        for place, (title, scores) in enumerate(means(artifacts).items()):
            yield score_chart(artifacts, ("scores", "retained", "skill")[place], title, scores)
    else:
        yield Missing("Scores of theta0, the baselines and the merged model", artifacts.run_command())
    if artifacts.frontier:
        yield frontier_chart(artifacts)
    else:
        command = artifacts.run_command() + " --config.frontier.scales='(0.5, 1.0, 2.0)'"
        yield Missing("The frontier between what is retained and what is learnt (it needs evaluate.suites)", command)
    if artifacts.models:
        yield score_table(artifacts)


def score_chart(artifacts: Artifacts, name: str, title: str, scores: Mapping[str, Score]) -> Chart:
    """One mean of every model, with its standard error."""
    points = []
    for place, (model, score) in enumerate(scores.items()):
        colour, shape = style(artifacts, model)
        tip = f"{called(artifacts, model)}: {score.value:.1f} ± {score.error:.1f} %"
        points.append(Points([score.value], [place], [tip], colour, "", shape, 5.5, [score.error]))
    head, _, suites = title.partition(": ")
    return Chart(
        name,
        f"Accuracy, {head}",
        Axis("% right, ± standard error"),
        Axis("", names=tuple(called(artifacts, model) for model in scores)),
        tuple(points),
        f"Mean of {suites}." if suites else "",
        height=80 + 24 * len(scores),
    )


def score_table(artifacts: Artifacts) -> Table:
    """Every suite, or dataset, with every model; the best of each is marked."""
    part, models = part_of(artifacts), artifacts.models
    rows = []
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
    return Table("Accuracy in per cent, best bold; losses in nats per supervised token", header, rows)


def _best(values: list[Number]) -> list[Cell]:
    texts = [f"{value:.1f}" for value in values]
    top = max(map(float, texts))
    return [Cell(text, best=float(text) == top) for text in texts]


def frontier_chart(artifacts: Artifacts) -> Chart:
    """Retained score against skill as each task vector is scaled."""
    models = dict(artifacts.frontier["models"])
    retention = artifacts.frontier["inputs"]["frontier"]["retention"]
    (base,) = models.pop(THETA0)["points"]
    lines, dots = [], []
    for name, entry in models.items():
        colour, shape = style(artifacts, name)
        scales, retained, skill = zip(*entry["points"], strict=True)
        x, y = ([100 * value for value in values] for values in (retained, skill))
        tips = [
            f"{called(artifacts, name)}, λ = {scale:g}\nretained {a:.1f} %, skill {b:.1f} %"
            for scale, a, b in zip(scales, x, y, strict=True)
        ]
        lines.append(Line(x, y, tips, colour))
        whole = [place for place, scale in enumerate(scales) if scale == 1]
        dots.append(
            Points(
                [x[i] for i in whole],
                [y[i] for i in whole],
                [tips[i] for i in whole],
                colour,
                called(artifacts, name),
                shape,
                6.0,
            )
        )
    start = Points([100 * base[1]], [100 * base[2]], ["theta0"], "ink", "theta0", "star", 6.0)
    return Chart(
        "frontier",
        "What is retained against what is learnt",
        Axis("retained: suites of old skills (%)", low=0),
        Axis("skill: suites that the mixture teaches (%)"),
        (Span(0, 100 * retention * base[1], f"less than {100 * retention:g} % retained"), *lines, *dots, start),
        "Each line scales a model's way from theta0 (the star) by λ; the large mark is λ = 1. Up and to the right is better.",
        height=330,
    )
