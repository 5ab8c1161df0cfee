"""Datasets that disagree: the similarity matrix, the conflict axes, neighbourhoods, and the spectrum."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from merit_jax.reporting.blocks import Missing, Part, Section, Text
from merit_jax.reporting.figures import Axis, Figure
from merit_jax.reporting.labels import called
from merit_jax.reporting.matrix import heat_map
from merit_jax.reporting.run_data import Artifacts, Conflict
from merit_jax.reporting.series import Series, contours, plot
from merit_jax.reporting.theme import Colour, look
from merit_jax.reporting.tsne import FEWEST, density, embed
from merit_jax.workdir.paths import MERGED, THETA0

GRID = 72
"""Points along each side of the grid on which the density is taken."""


def conflict(artifacts: Artifacts) -> Section:
    """Returns the section on `conflict.npz`."""
    return Section("conflict", "Which datasets disagree", tuple(_parts(artifacts)))


def _parts(artifacts: Artifacts) -> Iterator[Part]:
    found = artifacts.conflict
    if found is None:
        yield Missing(
            "Cosine similarities of the datasets' gradients, conflict axes, t-SNE and spectrum",
            artifacts.run_command("mixture", "gradients", "conflict"),
        )
        return
    yield Text(_in_words(found))
    if found.repeated:
        yield Text(_repeated(found))
    if found.similarity is not None:
        yield similarity_figure(artifacts, found, found.similarity)
    axes = np.flatnonzero(found.explained).tolist()
    for first, second in ((0, 1), (0, 2)):
        if second in axes:
            yield axes_figure(artifacts, found, first, second)
    if found.similarity is None:
        return
    if len(found.names) >= FEWEST and len(axes) > 1:
        yield tsne_figure(artifacts, found, found.similarity)
    if axes:
        yield spectrum_figure(found.similarity)


def _in_words(found: Conflict) -> str:
    held, exist = 100 * found.explained.sum(), int(np.count_nonzero(found.explained))
    axes = (
        f"The first {exist} conflict axes hold {held:.0f} % of the variance."
        if exist
        else "They have no conflict axis."
    )
    if found.similarity is None:
        return (
            f"The cosines of the {len(found.names)} datasets' gradients at theta0 were too many to keep "
            f"(conflict.similarity_bytes). {axes}"
        )
    off = found.similarity[~np.eye(len(found.names), dtype=bool)]
    at = np.unravel_index(np.argmin(found.similarity), found.similarity.shape)
    one, other = (found.names[i] for i in at)
    negative = 100 * np.mean(off < 0)
    return (
        f"Cosines of the {len(found.names)} datasets' gradients at theta0: mean {off.mean():.2f}, {negative:.0f} % of the pairs "
        f"negative; furthest apart are {one} and {other} ({found.similarity[at]:.2f}). {axes}"
    )


def _repeated(found: Conflict) -> str:
    groups = "; ".join(" and ".join(group) for group in found.repeated)
    return f"Duplicates, which have the same gradient (cosine 1 to within 1e-6), files or training examples: {groups}."


def similarity_figure(artifacts: Artifacts, found: Conflict, similarity: np.ndarray) -> Figure:
    """Returns a heat map of C, its datasets in the order of their groups and, within each, along the first axis."""
    groups = artifacts.groups
    place = [groups.get(name, -1) for name in found.names]
    order = sorted(range(len(found.names)), key=lambda i: (place[i], found.scores[i, 0]))
    split = len(groups) == len(found.names)
    names, rows = [found.names[i] for i in order], [place[i] for i in order] if split else []
    return Figure(
        "conflict",
        "Cosine of the datasets' gradients",
        partial(heat_map, similarity[np.ix_(order, order)], names, rows),
        "Orange: they pull the weights the same way; blue: against each other. "
        + ("In the order of the branches." if split else "No branches of whole datasets to order them by."),
        wide=True,
    )


def axes_figure(artifacts: Artifacts, found: Conflict, first: int, second: int) -> Figure:
    """Returns the datasets along two conflict axes; where models have been projected, their ways from theta0 too."""
    title = f"Datasets on conflict axes {first + 1} and {second + 1}"
    x, y = (Axis(f"axis {i + 1} ({100 * found.explained[i]:.0f} % of the variance)") for i in (first, second))
    scores = found.scores[:, [first, second]]
    series = [*_points(artifacts, found.names, scores), *_models(artifacts, found, first, second)]
    note = (
        "Branches are divided at the sample-weighted median of each axis." if artifacts.split == "median_split" else ""
    )
    if artifacts.projection and found.similarity is not None:
        note += " Black: theta0 and the merged model; stars: branches, by the cosines of their ways with each descent."
    chart = partial(plot, series, x, y, zero=True, height=330)
    return Figure(f"axes{first + 1}{second + 1}", title, chart, note.strip())


def _points(artifacts: Artifacts, names: Sequence[str], places: np.ndarray) -> Iterator[Series]:
    """Datasets as points, coloured by branch."""
    groups = artifacts.groups
    for group in sorted({groups.get(name, -1) for name in names}):
        chosen = [i for i, name in enumerate(names) if groups.get(name, -1) == group]
        colour: Colour
        colour, shape = look(group) if group >= 0 else ("muted", "circle")
        label = f"branch {group}" if group >= 0 else "datasets"
        tips = [f"{names[i]}\n{label}" if group >= 0 else names[i] for i in chosen]
        x, y = places[chosen].T.tolist()
        yield Series(label, x, y, tips, colour, shape, listed=group >= 0)


def _models(artifacts: Artifacts, found: Conflict, first: int, second: int) -> Iterator[Series]:
    """theta0, branches (stars of their colour) and merged model (a diamond), at `(c − c̄) V` for the row c of their cosines."""
    if found.similarity is None:
        return
    for name, cosines in artifacts.projection.items():
        x, y = ((np.asarray(cosines) - found.similarity.mean(axis=0)) @ found.components)[[first, second]].tolist()
        branch = name.removeprefix("branch ")
        colour: Colour = look(int(branch))[0] if branch.isdigit() else "ink"
        label, shape = called(artifacts, name), "diamond" if name == MERGED else "star"
        yield Series(label, [x], [y], [label], colour, shape, 6.0, listed=name in (THETA0, MERGED))


def tsne_figure(artifacts: Artifacts, found: Conflict, similarity: np.ndarray) -> Figure:
    """Returns the datasets by t-SNE of their cosine distances, with contours of their density."""
    places = embed(similarity, found.scores[:, :2])
    return Figure(
        "tsne",
        "Neighbourhoods of datasets (t-SNE)",
        partial(_tsne_chart, list(_points(artifacts, found.names, places)), places),
        "Near datasets have similar gradients; distances between clusters mean nothing. Lines: density of the datasets.",
    )


def _tsne_chart(series: Sequence[Series], places: np.ndarray) -> Any:
    low, high = places.min(axis=0), places.max(axis=0)
    x, y = (np.linspace(a - 0.3 * (b - a), b + 0.3 * (b - a), GRID) for a, b in zip(low, high, strict=True))
    shares = (0.15, 0.35, 0.55, 0.75, 0.95)
    curves = contours(x, y, density(places, x, y), shares, [0.35 + 0.5 * share for share in shares])
    return plot(series, Axis("t-SNE 1"), Axis("t-SNE 2"), curves=curves, height=330)


def spectrum_figure(similarity: np.ndarray) -> Figure:
    """Returns the share of the variance along every principal axis of the similarity matrix."""
    values = np.linalg.svd(similarity - similarity.mean(axis=0), compute_uv=False) ** 2
    shares = 100 * values / values.sum()
    at = list(range(1, len(shares) + 1))
    tips = [f"axis {i}: {share:.1f} %" for i, share in zip(at, shares, strict=True)]
    cumulative = np.cumsum(shares).tolist()
    lines = [
        Series("cumulative", at, cumulative, colour="muted", size=0, line=True, dashed=True),
        Series("each axis", at, shares.tolist(), tips, size=3, line=True),
    ]
    axes = Axis("principal axis"), Axis("share of the variance (%)", low=0, high=100)
    return Figure(
        "spectrum",
        "Spectrum of the similarity matrix",
        partial(plot, lines, *axes),
        "A few long axes: conflict has structure that a split along them can use. A flat spectrum: any balanced split does.",
    )
