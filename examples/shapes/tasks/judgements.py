"""Is it there: as yes or no, and as true or false."""

from random import Random

from examples.shapes.glyphs import DIGITS, LETTERS
from examples.shapes.scenes import COLORS, SHAPES, UNSEEN, Scene
from examples.shapes.tasks.task import HINT_YES_NO, YES_NO, Asked, Task
from examples.shapes.words import noun, short_phrase

TRUE_FALSE = ("true", "false")


def present(scene: Scene) -> set[str]:
    """What one can truly say is there: nouns, with and without colour."""
    return {name(thing) for thing in scene.things for name in (noun, short_phrase)}


def absent(scene: Scene) -> list[str]:
    """What is not there, but could be: a colour of the scene on another shape of it, another letter or digit."""
    colors = sorted({thing.color for thing in scene.things if thing.color})
    shapes = sorted({thing.name for thing in scene.of_kind("shape")})
    pairs = [(c, s) for c in colors for s in shapes] + [(c, s) for c in colors for s in SHAPES]
    pairs += [(c, s) for c in COLORS for s in shapes]
    names = [f"{c} {s}" for c, s in pairs if (c, s) not in UNSEEN] + 2 * list(SHAPES)
    names += [f"letter {x}" for x in LETTERS if scene.of_kind("letter")]
    names += [f"digit {x}" for x in DIGITS if scene.of_kind("digit")]
    there = present(scene)
    return [name for name in names if name not in there]


def exists(scene: Scene, random: Random) -> Asked | None:
    """Asks whether something is there."""
    answer = random.choice(YES_NO)
    what = random.choice(sorted(present(scene)) if answer == "yes" else absent(scene))
    return Asked({"what": what}, answer, YES_NO)


def is_true(scene: Scene, random: Random) -> Asked | None:
    """Asks whether it is true that something is there."""
    asked = exists(scene, random)
    return asked and Asked(asked.slots, TRUE_FALSE[YES_NO.index(asked.answer)], TRUE_FALSE)


TASKS = {
    "exists_yes_no": Task(
        440,
        exists,
        ("is there a {what} ?", "does the picture show a {what} ?", "can you see a {what} ?", "do you see a {what} ?"),
        HINT_YES_NO,
    ),
    "exists_true_false": Task(
        160,
        is_true,
        (
            "true or false : there is a {what} .",
            "there is a {what} in the picture . true or false ?",
            "the picture shows a {what} . is that true or false ?",
        ),
    ),
}
