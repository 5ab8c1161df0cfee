"""The palette and the style of every picture: the only place that names a colour, a shape or a size of type."""

from typing import Any

Colour = int | str
"""Place in the palette (0 to 7), or "ink", "muted"."""

COLOURS = 8
"""Colours of groups and models; further ones begin again, with another shape."""

LIGHT = {
    "c0": "#0072B2",
    "c1": "#D55E00",
    "c2": "#009E73",
    "c3": "#CC79A7",
    "c4": "#B67C00",
    "c5": "#56B4E9",
    "c6": "#7F3C8D",
    "c7": "#666666",
    "ink": "#1B1F24",
    "text": "#555D66",
    "muted": "#8A929C",
    "grid": "#E9EBEE",
    "soft": "#F0F1F3",
    "paper": "#FFFFFF",
}
"""Colours of files and of the page by day, after Okabe & Ito: readers who are colour-blind tell them apart."""

DARK = {
    "c0": "#4AA3DF",
    "c1": "#F0813A",
    "c2": "#2FC496",
    "c3": "#E29AC2",
    "c4": "#E0AD3B",
    "c5": "#8FD0F7",
    "c6": "#B784CF",
    "c7": "#A5A5A5",
    "ink": "#E8EAED",
    "text": "#A9B1BA",
    "muted": "#8B949E",
    "grid": "#2A2F35",
    "soft": "#262B30",
    "paper": "#1C2024",
}
"""The same on a dark page."""

PALETTE = tuple(LIGHT[f"c{place}"] for place in range(COLOURS))
"""Colours of groups and models in files."""

NEGATIVE, POSITIVE = "rgba(0,114,178,{})", "rgba(213,94,0,{})"
"""Colours of a matrix, blue below zero and vermilion above, of an opacity that the magnitude decides: zero is the paper's."""

SHAPES = {
    "circle": "circle",
    "square": "M-0.98,-0.98L0.98,-0.98L0.98,0.98L-0.98,0.98Z",
    "triangle": "M0.00,-1.47L1.31,0.90L-1.31,0.90Z",
    "diamond": "M0.00,-1.47L1.35,0.00L0.00,1.47L-1.35,0.00Z",
    "star": "M0.00,-1.98L0.50,-0.68L1.88,-0.61L0.81,0.26L1.16,1.60L0.00,0.85L-1.16,"
    "1.60L-0.81,0.26L-1.88,-0.61L-0.50,-0.68Z",
    "line": "M-1.5,-.15H1.5V.15H-1.5Z",
    "dashes": "M-1.5,-.15H-.3V.15H-1.5ZM.3,-.15H1.5V.15H.3Z",
}
"""Shapes of points by name, as SVG paths of about the same area; the star is theta0's, the lines are for the legend."""

GROUP_SHAPES = ("circle", "square", "triangle", "diamond")
"""Shapes of groups, which so differ without colour."""

STYLE: dict[str, Any] = {
    "background": LIGHT["paper"],
    "font": 'system-ui, -apple-system, "Segoe UI", Roboto, sans-serif',
    "view": {"stroke": None},
    "axis": {
        "domain": False,
        "ticks": False,
        "gridColor": LIGHT["grid"],
        "labelColor": LIGHT["text"],
        "labelFontSize": 10.5,
        "labelLimit": 260,
        "labelPadding": 6,
        "tickCount": 5,
        "titleColor": LIGHT["text"],
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "titlePadding": 8,
    },
    "legend": {
        "columnPadding": 12,
        "labelColor": LIGHT["text"],
        "labelFontSize": 10.5,
        "labelLimit": 300,
        "labelOffset": 6,
        "orient": "top",
        "rowPadding": 4,
        "symbolSize": 80,
        "symbolStrokeWidth": 0,
        "titleColor": LIGHT["text"],
        "titleFontSize": 10.5,
        "titleFontWeight": "normal",
    },
    "title": {
        "anchor": "start",
        "color": LIGHT["ink"],
        "fontSize": 13,
        "fontWeight": 600,
        "offset": 10,
        "subtitleColor": LIGHT["text"],
        "subtitleFontSize": 10.5,
    },
}
"""Vega-Lite's configuration of every figure."""


DATA = ("data", "datasets", "domain", "title", "values")
"""Parts of a specification with words of the run, which may look like a colour."""


def look(index: int) -> tuple[int, str]:
    """Returns (colour, shape) of group or model `index`: no two of the first 32 are alike, and neighbours differ in both."""
    return index % COLOURS, GROUP_SHAPES[(index + index // COLOURS) % len(GROUP_SHAPES)]


def hex_of(colour: Colour) -> str:
    """Returns a colour of the light theme as #RRGGBB."""
    return PALETTE[colour] if isinstance(colour, int) else LIGHT[colour]


def css() -> str:
    """Returns the palette as CSS custom properties, which follow the reader's colour scheme, but are light on paper."""
    light, dark = (" ".join(f"--{name}: {value};" for name, value in theme.items()) for theme in (LIGHT, DARK))
    return f":root {{ {light} }}\n@media screen and (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}"


def with_variables(spec: Any) -> Any:
    """Returns a Vega-Lite specification whose colours are the properties of `css`; data are left as they are."""
    if isinstance(spec, dict):
        return {key: value if key in DATA else with_variables(value) for key, value in spec.items()}
    if isinstance(spec, list):
        return [with_variables(value) for value in spec]
    return _VARIABLES.get(spec, spec) if isinstance(spec, str) else spec


_VARIABLES = {value: f"var(--{name})" for name, value in LIGHT.items()}
