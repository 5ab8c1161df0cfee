"""Questions in two steps, each of which the mixture teaches alone."""

from random import Random

from merit_jax.examples.shapes.scenes import COLORS, Scene
from merit_jax.examples.shapes.tasks.counts import more
from merit_jax.examples.shapes.tasks.task import HINT_COLOR, HINT_SHAPE, HINT_YES_NO, YES_NO, Asked, Task
from merit_jax.examples.shapes.words import only_beside


def color_beside(scene: Scene, random: Random) -> Asked | None:
    """Asks for the colour of the only thing on a side of another."""
    if not (found := only_beside(scene, random)):
        return None
    thing, side, _, name = found
    return Asked({"side": side, "b": name}, str(thing.color))


def shape_beside(scene: Scene, random: Random) -> Asked | None:
    """Asks for the shape of the only thing on a side of another."""
    found = only_beside(scene, random)
    if not found or found[0].kind != "shape":
        return None
    return Asked({"side": found[1], "b": found[3]}, found[0].name)


def is_color_beside(scene: Scene, random: Random) -> Asked | None:
    """Asks whether the only thing on a side of another has a colour."""
    if not (asked := color_beside(scene, random)):
        return None
    answer, named = random.choice(YES_NO), asked.answer
    if answer == "no":
        named = random.choice([color for color in COLORS if color != named])
    return Asked({**asked.slots, "color": named}, answer)


REASONING = (
    Task(
        0,
        color_beside,
        ("what color is the object {side} the {b} ?", "name the color of the object {side} the {b} ."),
        HINT_COLOR,
    ),
    Task(
        0,
        shape_beside,
        ("what shape is the object {side} the {b} ?", "which shape does the object {side} the {b} have ?"),
        HINT_SHAPE,
    ),
    Task(0, is_color_beside, ("is the object {side} the {b} {color} ?",), HINT_YES_NO),
    Task(
        0,
        more,
        (
            "count the {a} and the {b} objects . which color has more ?",
            "of {a} and {b} , which color do you see more often ?",
        ),
        HINT_COLOR,
    ),
)
"""The tasks of the suite of reasoning."""
