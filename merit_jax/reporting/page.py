"""`report.html`: one self-contained page, and its figures as files."""

import logging
from collections.abc import Iterator, Sequence
from importlib import resources
from importlib.util import find_spec
from typing import Any

from etils import epath
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from merit_jax.reporting.blocks import Section
from merit_jax.reporting.cells import data_uri, packed, paint
from merit_jax.reporting.figures import Chart, Figure, Matrix
from merit_jax.reporting.run_data import read_artifacts
from merit_jax.reporting.sections import SECTIONS
from merit_jax.reporting.svg import draw, draw_matrix, standalone
from merit_jax.workdir.artifacts import write_text
from merit_jax.workdir.paths import Workdir

log = logging.getLogger("merit_jax")


def write_report(workdir: Workdir, folder: str) -> epath.Path:
    """Writes `report.html` and `figures/*.svg`, and where matplotlib is installed `figures/*.png`.

    Args:
        workdir: Of a run, finished or not.
        folder: The same as the user wrote it; the page shows commands with it.

    Returns:
        The page's path.

    Raises:
        ValueError: There is nothing of a run, or an artifact is damaged.
    """
    artifacts = read_artifacts(workdir, folder)
    sections = [section(artifacts) for section in SECTIONS]
    path = workdir.report
    for figure in figures(sections):
        _write_figure(workdir.root / "figures", figure)
    if find_spec("matplotlib") is None:
        log.info("figures are written as SVG alone: pip install 'merit-jax[figures]' for PNG")
    write_text(path, page(artifacts.title, sections))
    return path


def figures(sections: Sequence[Section]) -> Iterator[Figure]:
    """All figures, in order."""
    yield from (part for section in sections for part in section.parts if isinstance(part, Chart | Matrix))


def page(title: str, sections: Sequence[Section]) -> str:
    """The page as HTML; it loads nothing, and everything that comes from data is escaped."""
    environment = Environment(
        loader=PackageLoader("merit_jax.reporting", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"kind": lambda part: type(part).__name__, "svg": _svg, "cells": _cells}
    template = environment.get_template("page.html")
    inline = {name: Markup(_asset(f"{name.replace('_', '.')}")) for name in ("page_css", "chart_css", "page_js")}
    return template.render(title=title, sections=sections, **inline) + "\n"


def _asset(name: str) -> str:
    return resources.files("merit_jax.reporting").joinpath(name).read_text()


def _svg(figure: Figure) -> Markup:
    """A figure's element; every text in it has been escaped as it was drawn."""
    return Markup(draw_matrix(figure, data_uri(paint(figure.values))) if isinstance(figure, Matrix) else draw(figure))


def _cells(matrix: Matrix) -> dict[str, Any]:
    """What the page's script says of a cell of a heat map."""
    return {"names": matrix.names, "values": packed(matrix.values)}


def _write_figure(folder: epath.Path, figure: Figure) -> None:
    write_text(folder / f"{figure.name}.svg", standalone(str(_svg(figure)), figure.title))
    if find_spec("matplotlib") is not None:
        from merit_jax.reporting.picture import save_png

        save_png(figure, folder / f"{figure.name}.png")
