"""Draws a finished run in one picture: cosines by group, datasets on the conflict axes, and the models' scores.

python docs/figure.py runs/bigbench docs/bigbench.png
"""

import sys

import altair as alt
from etils import epath

from merit_jax.reporting.figures import png, svg
from merit_jax.reporting.page import figures
from merit_jax.reporting.run_data import read_artifacts
from merit_jax.reporting.sections import SECTIONS
from merit_jax.workdir.paths import Workdir

SHOWN = ("conflict", "axes12", "scores")
"""Names of the report's figures that are set side by side."""


def main(workdir: str, out: str) -> None:
    """Writes the picture."""
    root = epath.Path(workdir)
    artifacts = read_artifacts(Workdir(root, root), workdir)
    found = {figure.name: figure for figure in figures([section(artifacts) for section in SECTIONS])}
    panels = [found[name].chart().properties(title=found[name].title) for name in SHOWN if name in found]
    chart = alt.hconcat(*panels).resolve_scale(color="independent", shape="independent", strokeDash="independent")
    epath.Path(out).write_bytes(png(svg(chart)))


if __name__ == "__main__":
    main(*sys.argv[1:])
