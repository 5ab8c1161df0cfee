"""Places of things: in words, as a code, the row alone."""

from random import Random

from merit_jax.examples.shapes.scenes import Scene
from merit_jax.examples.shapes.tasks.task import HINT_PLACE, Asked, Task
from merit_jax.examples.shapes.words import PLACES, ROWS, pick


def location(scene: Scene, random: Random) -> Asked | None:
    """Asks for a place in words."""
    found = pick(scene, random, hide=("place",))
    return found and Asked({"ref": found[1]}, PLACES[found[0].cell])


def code(scene: Scene, random: Random) -> Asked | None:
    """Asks for a place as a code of row and column, counted from 1."""
    found = pick(scene, random, hide=("place",))
    return found and Asked({"ref": found[1]}, f"r{found[0].row + 1} c{found[0].column + 1}")


def row(scene: Scene, random: Random) -> Asked | None:
    """Asks for the row."""
    found = pick(scene, random, hide=("place",))
    return found and Asked({"ref": found[1]}, ROWS[found[0].row])


TASKS = {
    "location_words": Task(
        200,
        location,
        ("where is the {ref} ?", "in which place is the {ref} ?", "locate the {ref} ."),
        HINT_PLACE,
    ),
    "location_code": Task(
        140,
        code,
        ("where is the {ref} ?", "give the cell of the {ref} .", "locate the {ref} in the grid ."),
    ),
    "location_row": Task(
        80,
        row,
        ("in which row is the {ref} ?", "which row holds the {ref} ?", "where is the {ref} , by row ?"),
        tasted=False,
    ),
}
