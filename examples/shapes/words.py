"""Names of things, and references that pick one thing out of a scene."""

from collections.abc import Callable, Container
from random import Random

from merit_jax.examples.shapes.scenes import COLORS, SHAPES, Scene, Thing

PLACES = (
    "top left",
    "top middle",
    "top right",
    "middle left",
    "center",
    "middle right",
    "bottom left",
    "bottom middle",
    "bottom right",
)
ROWS = ("top", "middle", "bottom")
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SYNONYMS = dict(zip(COLORS, ("crimson", "emerald", "azure", "golden", "violet", "ivory"), strict=True))
CLASSES = {shape: "round" if shape in ("circle", "ring") else "angular" for shape in SHAPES}
SIDES = ("left of", "right of", "above", "below")


def noun(thing: Thing) -> str:
    """Returns the noun of a thing: "circle", "letter k", "digit 7", "written digit 7"."""
    prefix = {"shape": "", "letter": "letter ", "digit": "digit ", "written": "written digit "}[thing.kind]
    return prefix + thing.name


def phrase(thing: Thing) -> str:
    """Returns a thing with all its attributes: "large red circle", "green letter k"."""
    return " ".join(word for word in (thing.size, thing.color, noun(thing)) if word)


def short_phrase(thing: Thing) -> str:
    """Returns a thing with its colour: "red circle", "green letter k"."""
    return " ".join(word for word in (thing.color, noun(thing)) if word)


def place(thing: Thing) -> str:
    """Returns the place of a thing: "top left"."""
    return PLACES[thing.cell]


def references(scene: Scene, thing: Thing, hide: Container[str] = ()) -> list[str]:
    """Returns the references to one thing and no other.

    Args:
        scene: The scene.
        thing: One of its things.
        hide: What the reference may not tell: "noun", "color" or "place".
    """
    found = []
    color = thing.color is not None and "color" not in hide
    if "noun" not in hide and _alone(scene, thing, noun):
        found.append(noun(thing))
    if color and _alone(scene, thing, lambda other: other.color):
        found.append(f"{thing.color} object")
    if color and "noun" not in hide and _alone(scene, thing, short_phrase):
        found.append(short_phrase(thing))
    if "place" not in hide:
        found.append(f"object in the {place(thing)}")
    return found


def pick(
    scene: Scene, random: Random, hide: Container[str] = (), kinds: Container[str] = ("shape", "letter", "digit")
) -> tuple[Thing, str] | None:
    """Picks a thing of one of the kinds and a reference to it; None if nothing can be referred to."""
    things = [thing for thing in scene.things if thing.kind in kinds]
    for thing in random.sample(things, len(things)):
        if found := references(scene, thing, hide):
            return thing, random.choice(found)
    return None


def pick_two(scene: Scene, random: Random) -> tuple[tuple[Thing, str], tuple[Thing, str]] | None:
    """Picks two things, each with a reference that does not name its place."""
    known = [(thing, found) for thing in scene.things if (found := references(scene, thing, ("place",)))]
    if len(known) < 2:
        return None
    first, second = random.sample(known, 2)
    return (first[0], random.choice(first[1])), (second[0], random.choice(second[1]))


def is_beside(thing: Thing, side: str, other: Thing) -> bool:
    """Returns whether a thing is on a side of another, at any distance: "left of" compares columns, "above" rows."""
    return {
        "left of": thing.column < other.column,
        "right of": thing.column > other.column,
        "above": thing.row < other.row,
        "below": thing.row > other.row,
    }[side]


def only_beside(scene: Scene, random: Random) -> tuple[Thing, str, Thing, str] | None:
    """Picks a thing that is the only one on a side of another: the thing, the side, the other and its reference."""
    found = [
        (beside[0], side, other)
        for other in scene.things
        for side in SIDES
        if references(scene, other, ("place",))
        and len(beside := [thing for thing in scene.things if is_beside(thing, side, other)]) == 1
    ]
    if not found:
        return None
    thing, side, other = random.choice(found)
    return thing, side, other, random.choice(references(scene, other, ("place",)))


def _alone(scene: Scene, thing: Thing, key: Callable[[Thing], str | None]) -> bool:
    return sum(key(other) == key(thing) for other in scene.things) == 1
