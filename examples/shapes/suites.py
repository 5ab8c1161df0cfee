"""Seven held-out suites: other scenes, other wordings, some combinations of colour and shape that the mixture never shows.

Counting and judging (yes or no) have no suite: at the quickstart's length joint training stays at chance there, as theta0 does.
Where the mixture has the same fact in several forms, the prompt says which is wanted, with the hint of the matching dataset.
Skill suites follow the knobs (knobs.py): they expect the form that the dataset teaches, and ask in its order of words.
"""

from collections.abc import Mapping
from random import Random

from merit_jax.examples.shapes.knobs import DEFAULTS, Knobs
from merit_jax.examples.shapes.reasoning import REASONING
from merit_jax.examples.shapes.scenes import Scene, make_scene
from merit_jax.examples.shapes.tasks.task import Row, Task, ask_rows
from merit_jax.examples.shapes.verbose import ASK, Turn

SCENES = 1200
"""Scenes that the suites share."""


Reworded = tuple[str, tuple[str, ...]]
"""A task of the mixture by name, and the wordings that a suite has for it."""


def _new(name: str, *wordings: str) -> Reworded:
    """Returns a task of the mixture in other words."""
    return name, wordings


EXACT: dict[str, tuple[Reworded | Task, ...]] = {
    "ocr": (
        _new("ocr_letter", "name the letter you see .", "which one of the letters can you read ?"),
        _new("ocr_all", "read the letters in the picture .", "which letters do you see ? name all ."),
        _new("digit_digit", "read the number in the picture .", "which digit do you see ?"),
    ),
    "labels": (
        _new("color_synonym", "the {ref} : which shade is it ?", "tell me which shade the {ref} has ."),
        _new("shape_class", "which kind of shape does the {ref} have ?", "the {ref} : what kind of shape is it ?"),
        _new("location_code", "which cell of the grid holds the {ref} ?", "in which cell of the grid is the {ref} ?"),
    ),
    "choice": (
        _new("choice_text", "{ask} which one is right : {listed} ?", "which of the options {listed} is right ? {ask}"),
    ),
    "short_answer": (
        _new("color_word", "the color of the {ref} : what is it ?", "tell me : which color is the {ref} ?"),
        _new("shape_noun", "the shape of the {ref} : what is it ?", "tell me which shape the {ref} has ."),
        _new(
            "location_words", "the place of the {ref} : what is it ?", "in the picture , where do you see the {ref} ?"
        ),
    ),
    "reason": REASONING,
}
"""Suite -> its tasks, with equally many rows; answers are matched exactly or chosen among the options."""

DESCRIBE = (
    "describe everything you can see .",
    "tell me what you see in the picture .",
    "please give a description of all you see .",
    "explain in detail what is in the picture .",
)
CONVERSE = {
    "object": (
        "describe the {ref} in detail , please .",
        "what does the {ref} look like ?",
        "and the {ref} , please ?",
    ),
    "location": ("in what place can i see the {ref} ?", "please tell me where the {ref} is ."),
    "color": ("please tell me the color of the {ref} .", "what is the color of the {ref} ?"),
}
SUITES = ("describe", "converse", *EXACT)


def make_suite(name: str, rows: int, seed: int, knobs: Knobs = DEFAULTS) -> list[Row]:
    """Makes the rows of a suite."""
    random = Random(f"{seed}/{name}")
    if name == "describe":
        return [_describe(scene, random) for scene in _scenes(random, rows, seed)]
    if name == "converse":
        return [_converse(scene, random) for scene in _scenes(random, rows, seed)]
    tasks = _tasks(name, knobs.tasks())
    shares = [rows // len(tasks) + (k < rows % len(tasks)) for k in range(len(tasks))]
    parts = [
        knobs.reverse_skill(ask_rows(task, share, "suites", seed, f"{name}/{k}", SCENES))
        for k, (task, share) in enumerate(zip(tasks, shares, strict=True))
    ]
    return random.sample(found := [row for part in parts for row in part], len(found))


def _tasks(name: str, known: Mapping[str, Task]) -> list[Task]:
    """Returns the tasks of a suite, those of the mixture as they are known."""
    return [task if isinstance(task, Task) else known[task[0]]._replace(wordings=task[1]) for task in EXACT[name]]


def _scenes(random: Random, rows: int, seed: int) -> list[Scene]:
    return [make_scene("suites", seed, number) for number in random.sample(range(max(rows, SCENES)), rows)]


def _describe(scene: Scene, random: Random) -> Row:
    turn = ASK["scene"](scene, random, DESCRIBE)
    assert turn
    return Row(scene, (turn.question, turn.answer), facts=turn.facts)


def _converse(scene: Scene, random: Random) -> Row:
    first: Turn | None = None
    while not first:
        kind = random.choice(("location", "color", "object"))
        first = ASK[kind](scene, random, CONVERSE[kind])
    last = first
    while last.answer == first.answer:
        last = ASK["object"](scene, random, CONVERSE["object"]) or first
    return Row(scene, (first.question, first.answer, last.question, last.answer), facts=last.facts)
