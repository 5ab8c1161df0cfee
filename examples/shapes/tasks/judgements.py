"""Presence: as yes or no, and as true or false."""

from random import Random

from merit_jax.examples.shapes.glyphs import DIGITS, LETTERS
from merit_jax.examples.shapes.scenes import COLORS, SHAPES, UNSEEN, Scene, Thing
from merit_jax.examples.shapes.tasks.task import HINT_YES_NO, YES_NO, Asked, Task
from merit_jax.examples.shapes.words import noun, short_phrase

TRUE_FALSE = ("true", "false")


def present(scene: Scene) -> set[str]:
    """Returns all true names of things that are there: nouns, with and without colour."""
    return {name(thing) for thing in scene.things for name in (noun, short_phrase)}


def altered(thing: Thing, color: bool, random: Random) -> Thing:
    """Returns a thing with another colour, or else of another name of its kind."""
    if color and thing.color:
        return thing._replace(color=random.choice(COLORS))
    return thing._replace(name=random.choice({"shape": SHAPES, "letter": LETTERS}.get(thing.kind, DIGITS)))


def exists(scene: Scene, random: Random) -> Asked | None:
    """Asks whether something is there; what is not there is a thing of the scene, altered in one attribute."""
    answer, there = random.choice(YES_NO), present(scene)
    thing, name = random.choice(scene.things), random.choice((noun, short_phrase))
    what = name(thing)
    while answer == "no" and what in there:
        other = altered(thing, name is short_phrase and random.random() < 0.5, random)
        if scene.split != "mixture" or (other.color, other.name) not in UNSEEN:
            what = name(other)
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
