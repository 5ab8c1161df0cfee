"""Sorts the questions of easy-vqa by kind: 24 wordings are 16 kinds, and each kind is a dataset."""

import re

COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")

WORDINGS = {
    "what_shape": (
        "what shape is in the image ?",
        "what shape is present ?",
        "what shape does the image contain ?",
    ),
    "what_shape_by_color": ("what is the COLOR shape ?",),
    "what_color": ("what color is the shape ?", "what is the color of the shape ?"),
    "what_color_by_shape": ("what color is the SHAPE ?", "what is the color of the SHAPE ?"),
    "contains_color": ("does the image contain a COLOR shape ?",),
    "contains_shape": ("does the image contain a SHAPE ?",),
    "contains_not_color": ("does the image not contain a COLOR shape ?",),
    "contains_not_shape": ("does the image not contain a SHAPE ?",),
    "is_there_color": ("is there a COLOR shape ?", "is there a COLOR shape in the image ?"),
    "is_there_shape": ("is there a SHAPE ?", "is there a SHAPE in the image ?"),
    "is_there_not_color": ("is there not a COLOR shape ?", "is there not a COLOR shape in the image ?"),
    "is_there_not_shape": ("is there not a SHAPE ?", "is there not a SHAPE in the image ?"),
    "is_present_color": ("is a COLOR shape present ?",),
    "is_present_shape": ("is a SHAPE present ?",),
    "is_no_present_color": ("is no COLOR shape present ?",),
    "is_no_present_shape": ("is no SHAPE present ?",),
}
"""Kind -> its wordings, where COLOR and SHAPE stand for any of theirs."""

_KIND = {wording: kind for kind, wordings in WORDINGS.items() for wording in wordings}
_BLANKS = (("COLOR", re.compile(rf"\b({'|'.join(COLORS)})\b")), ("SHAPE", re.compile(rf"\b({'|'.join(SHAPES)})\b")))


def spaced(text: str) -> str:
    """Returns lower-cased words and punctuation marks with single spaces between, as examples/shapes decodes."""
    return " ".join(re.findall(r"\w+|[^\w\s]", text.lower()))


def kind_of(question: str) -> str | None:
    """Returns the kind of a spaced question; None if its wording is unknown."""
    for blank, names in _BLANKS:
        question = names.sub(blank, question)
    return _KIND.get(question)
