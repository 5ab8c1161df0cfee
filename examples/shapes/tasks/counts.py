"""Counting, as digit or as word, all things or those of a colour; which colour is more frequent."""

from random import Random

from merit_jax.examples.shapes.scenes import COLORS, Scene
from merit_jax.examples.shapes.tasks.task import HINT_DIGIT, Asked, Task
from merit_jax.examples.shapes.words import NUMBERS


def number_of(scene: Scene, color: str) -> int:
    """Returns the things of a colour."""
    return sum(thing.color == color for thing in scene.things)


def count(scene: Scene, random: Random) -> Asked | None:
    """Asks how many things there are, for a digit."""
    return Asked({}, str(len(scene.things)))


def count_in_words(scene: Scene, random: Random) -> Asked | None:
    """Asks how many things there are, for a word."""
    return Asked({}, NUMBERS[len(scene.things)])


def count_color(scene: Scene, random: Random) -> Asked | None:
    """Asks how many things have a colour; 0, 1, 2 and 3 or more are about equally frequent."""
    wanted = random.choices((0, 1, 2, 3), (2, 3, 3, 4))[0]
    fitting = [color for color in COLORS if min(number_of(scene, color), 3) == wanted]
    if not fitting:
        return None
    color = random.choice(fitting)
    return Asked({"color": color}, str(number_of(scene, color)))


def more(scene: Scene, random: Random) -> Asked | None:
    """Asks which of two colours more things have."""
    first, second = random.sample(COLORS, 2)
    counts = number_of(scene, first), number_of(scene, second)
    if counts[0] == counts[1] or (not min(counts) and random.random() < 0.7):
        return None
    return Asked({"a": first, "b": second}, first if counts[0] > counts[1] else second)


TASKS = {
    "count_digit": Task(
        320,
        count,
        ("how many objects are there ?", "how many objects does the picture show ?", "count the objects ."),
        HINT_DIGIT,
    ),
    "count_word": Task(
        200,
        count_in_words,
        ("how many objects are there ?", "count the objects in the picture .", "what is the number of objects ?"),
    ),
    "count_color": Task(
        280,
        count_color,
        ("how many {color} objects are there ?", "count the {color} objects .", "how many objects are {color} ?"),
        HINT_DIGIT,
    ),
    "more_color": Task(
        160,
        more,
        (
            "are there more {a} or more {b} objects ?",
            "which color is more frequent , {a} or {b} ?",
            "{a} or {b} : which one do you see more often ?",
        ),
    ),
}
