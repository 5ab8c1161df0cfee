"""Relative places of two things."""

from random import Random

from merit_jax.examples.shapes.scenes import Scene
from merit_jax.examples.shapes.tasks.task import HINT_YES_NO, YES_NO, Asked, Task
from merit_jax.examples.shapes.words import SIDES, is_beside, noun, only_beside, pick_two


def holds(scene: Scene, random: Random) -> Asked | None:
    """Asks whether a thing is on a side of another."""
    if not (found := pick_two(scene, random)):
        return None
    (thing, name), (other, other_name) = found
    answer = random.choice(YES_NO)
    sides = [side for side in SIDES if is_beside(thing, side, other) == (answer == "yes")]
    return Asked({"a": name, "side": random.choice(sides), "b": other_name}, answer, YES_NO)


def which(scene: Scene, random: Random) -> Asked | None:
    """Asks for the only thing on a side of another."""
    if not (found := only_beside(scene, random)):
        return None
    thing, side, _, name = found
    return Asked({"side": side, "b": name}, noun(thing))


def side_of(scene: Scene, random: Random) -> Asked | None:
    """Asks on which side of another a thing of the same row or column is."""
    if not (found := pick_two(scene, random)):
        return None
    (thing, name), (other, other_name) = found
    if thing.row != other.row and thing.column != other.column:
        return None
    side = next(side for side in SIDES if is_beside(thing, side, other))
    return Asked({"a": name, "b": other_name}, side.split()[0])


TASKS = {
    "relation_yes_no": Task(
        240,
        holds,
        ("is the {a} {side} the {b} ?", "do you see the {a} {side} the {b} ?", "{side} the {b} , is there the {a} ?"),
        HINT_YES_NO,
    ),
    "relation_noun": Task(
        160,
        which,
        ("what is {side} the {b} ?", "which object is {side} the {b} ?", "name the object {side} the {b} ."),
    ),
    "relation_side": Task(
        120,
        side_of,
        (
            "where is the {a} , seen from the {b} ?",
            "on which side of the {b} is the {a} ?",
            "seen from the {b} , on which side do you see the {a} ?",
        ),
        tasted=False,
    ),
}
