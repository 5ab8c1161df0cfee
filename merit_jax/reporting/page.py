"""`report.html`: one self-contained page, and its figures as files."""

from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from typing import Any

from etils import epath
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from merit_jax.core.text import visible
from merit_jax.reporting.blocks import Missing, Section
from merit_jax.reporting.figures import Figure, can_draw, png, specification, svg
from merit_jax.reporting.run_data import read_artifacts
from merit_jax.reporting.sections import SECTIONS, SECTIONS_OF_PRUNING
from merit_jax.reporting.theme import css, with_variables
from merit_jax.workdir.artifacts import write_bytes, write_text
from merit_jax.workdir.paths import Workdir


def write_report(workdir: Workdir, folder: str) -> epath.Path:
    """Writes `report.html`, and each of its figures as `figures/NAME.svg` and `figures/NAME.png`.

    Without the `figures` extra installed, the page has the words and tables alone, and says so.

    Args:
        workdir: Of a run, finished or not, or of a pruning.
        folder: The same as the user wrote it; the page shows commands with it.

    Returns:
        The page's path.

    Raises:
        ValueError: There is nothing of a run, or an artifact is damaged.
    """
    artifacts = read_artifacts(workdir, folder)
    sections = [section(artifacts) for section in (SECTIONS_OF_PRUNING if artifacts.only_pruned else SECTIONS)]
    if not can_draw():
        sections = without_figures(sections)
    for figure in figures(sections):
        drawing = svg(figure.chart(), figure.title)
        write_text(workdir.root / "figures" / f"{figure.name}.svg", drawing)
        write_bytes(workdir.root / "figures" / f"{figure.name}.png", png(drawing))
    write_text(workdir.report, page(artifacts.title, sections))
    return workdir.report


def figures(sections: Sequence[Section]) -> Iterator[Figure]:
    """Yields all figures, in order."""
    yield from (part for section in sections for part in section.parts if isinstance(part, Figure))


def without_figures(sections: Sequence[Section]) -> list[Section]:
    """Returns the sections without their figures; the first says how to get them."""
    words = [s._replace(parts=tuple(part for part in s.parts if not isinstance(part, Figure))) for s in sections]
    hint = Missing("The figures", "pip install 'merit-jax[figures]'")
    return [words[0]._replace(parts=(*words[0].parts, hint)), *words[1:]] if any(figures(sections)) else words


def page(title: str, sections: Sequence[Section]) -> str:
    """Returns the page as HTML; it loads nothing, and everything that comes from data is escaped."""
    environment = Environment(
        loader=PackageLoader("merit_jax.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=lambda part: (
            visible(part, keep="\n") if isinstance(part, str) and not isinstance(part, Markup) else part
        ),
    )
    environment.filters |= {"kind": lambda part: type(part).__name__, "spec": _spec}
    styles = Markup(css() + "\n" + _asset("page.css"))
    scripts = [Markup(script) for script in (_vega() if any(figures(sections)) else "", _asset("page.js"))]
    template = environment.get_template("page.html")
    return template.render(title=title, sections=sections, styles=styles, scripts=scripts) + "\n"


def _asset(name: str) -> str:
    return resources.files("merit_jax.reporting").joinpath(name).read_text()


@cache
def _vega() -> str:
    """The libraries that draw the figures in the reader's browser: Vega, Vega-Lite and Vega-Embed."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;").replace("</script", r"<\/script")


def _spec(figure: Figure) -> dict[str, Any]:
    """A figure for the page: its title stands above it, its colours are the page's."""
    spec = with_variables(specification(figure.chart().properties(description=figure.title)))
    spec["config"]["background"] = None
    return {key: value for key, value in spec.items() if key != "$schema"}
