"""A task: question wordings, an optional hint at the wanted form, and a function that reads the answer off a scene."""

from collections.abc import Callable, Iterator, Mapping
from random import Random
from typing import NamedTuple

from merit_jax.examples.shapes.scenes import Scene, make_scene

YES_NO = ("yes", "no")
HINT_YES_NO = "answer yes or no ."
HINT_COLOR = "answer with one color word ."
HINT_SHAPE = "answer with the shape ."
HINT_PLACE = "answer with the place ."
HINT_DIGIT = "answer with a digit ."
HINT_LETTER = "answer with one letter ."
HINT_OPTION = "answer with one of the options ."


class Asked(NamedTuple):
    """A question about one scene.

    Attributes:
        slots: Open parts of the wordings -> words.
        answer: The one right answer.
        options: The answers to choose from; empty if there are none.
    """

    slots: Mapping[str, str]
    answer: str
    options: tuple[str, ...] = ()


class Task(NamedTuple):
    """A kind of question.

    Attributes:
        rows: Rows of its fine-tuning dataset.
        ask: Asks about a scene; None where the scene does not allow the question.
        wordings: Question templates.
        hint: The form of the answer, as the prompt states it; empty for none.
        written: Whether its scenes hold a handwritten digit.
        tasted: Whether theta0 sees a few of its answers before fine-tuning.
    """

    rows: int
    ask: Callable[[Scene, Random], Asked | None]
    wordings: tuple[str, ...]
    hint: str = ""
    written: bool = False
    tasted: bool = True


class Row(NamedTuple):
    """A question with its scene, as it is written to a file.

    Attributes:
        scene: The scene.
        turns: Questions and answers in turn.
        options: The answers to choose from; empty if there are none.
        facts: Facts that a free answer should mention; empty if the answer is to be matched exactly.
    """

    scene: Scene
    turns: tuple[str, ...]
    options: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()


def question(task: Task, asked: Asked, random: Random) -> str:
    """Returns one of the task's wordings, filled, with its hint."""
    return " ".join(filter(None, (random.choice(task.wordings).format(**asked.slots), task.hint)))


def ask_rows(task: Task, rows: int, split: str, seed: int, key: str, scenes: int) -> list[Row]:
    """Asks about scene after scene of a split until there are enough rows, at most once each.

    Args:
        task: The task.
        rows: Rows to make.
        split: Split of the scenes.
        seed: Seed of the world.
        key: Name of the dataset; another key takes the scenes in another order.
        scenes: Scenes to share with other datasets; more are made where the task needs more.

    Returns:
        The rows.
    """
    random = Random(f"{seed}/{split}/{key}")
    found: list[Row] = []
    for number in _order(random, scenes):
        if len(found) == rows:
            break
        scene = make_scene(split, seed, number, task.written)
        if asked := task.ask(scene, random):
            found.append(Row(scene, (question(task, asked, random), asked.answer), asked.options))
    return found


def _order(random: Random, scenes: int) -> Iterator[int]:
    """Yields all of the shared scenes in random order, then further ones."""
    yield from random.sample(range(scenes), scenes)
    yield from range(scenes, 100 * scenes + 100_000)
