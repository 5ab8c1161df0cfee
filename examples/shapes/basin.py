"""Data that makes theta0 an instruction-tuned model before fine-tuning begins: it sees, it speaks in sentences."""

from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import NamedTuple

from merit_jax.examples.shapes.scenes import Scene, Thing, make_scene
from merit_jax.examples.shapes.tasks import TASKS
from merit_jax.examples.shapes.tasks.task import Row, Task, ask_rows
from merit_jax.examples.shapes.verbose import ASK, WORDINGS, Turn, describe
from merit_jax.examples.shapes.words import PLACES, phrase, place, references
from merit_jax.examples.shapes.written import written_digits

LOOKS = ("what is in the {place} ?", "look at the {place} .")
EMPTY, TWO_TURNS, WRITTEN = 0.15, 0.3, 0.1
"""Shares of looks at an empty cell, of verbose conversations of two turns, of scenes with handwriting."""


WHOLE = (
    "describe all you see in the picture .",
    "describe in detail what you see .",
    "describe all objects in the picture .",
    "please describe everything in the picture .",
    "please tell me what is in the picture .",
    "tell me everything you can see .",
    "tell me in detail what the picture shows .",
    "give a description of the picture .",
    "please give a full description of everything .",
    "explain what you see in the picture .",
    "please explain everything in the picture .",
    "explain in detail what the picture shows .",
)
"""Further questions for a description of everything: without them "describe the picture .", a caption in two datasets, stands
for them all."""

FORMS = ("never", "little", "well")
"""How well theta0 knows the answer forms of the fine-tuning datasets."""


class Counts(NamedTuple):
    """The numbers of rows.

    Attributes:
        look: Rows of visual look-ups, in crowded scenes.
        look_turns: Look-ups in each of them.
        verbose: Rows of full sentences.
        polish: Rows of the last, mixed file.
        short: Short answers among them.
        scenes: Scenes that all of them share.
        practice: Short answers of the file "forms", equally many in the form of each fine-tuning dataset.
        whole: Descriptions of everything in it, asked for in further wordings.
    """

    look: int = 24_000
    look_turns: int = 4
    verbose: int = 40_000
    polish: int = 9_600
    short: int = 1_200
    scenes: int = 12_000
    practice: int = 12_000
    whole: int = 4_000


def make_basin(
    counts: Counts, seed: int, forms: str = "little", tasks: Mapping[str, Task] = TASKS
) -> dict[str, list[Row]]:
    """Makes the files of theta0's data, by name.

    Args:
        counts: The numbers of rows.
        seed: Seed of the world.
        forms: One of `FORMS`. "never": no file has a short answer of a fine-tuning task; "little": `polish` has a few;
            "well": there is a further file "forms", full of them.
        tasks: The fine-tuning tasks.

    Returns:
        "look", "verbose" and "polish", and "forms" if they are to be known well.
    """
    tasks = {name: task for name, task in tasks.items() if not (task.written and written_digits() is None)}
    files = {
        "look": _each(counts.look, counts, seed, "look", partial(look, turns=counts.look_turns), "many"),
        "verbose": _each(counts.verbose, counts, seed, "verbose", verbose),
        "polish": polish(counts if forms != "never" else counts._replace(short=0), seed, tasks),
    }
    return files | {"forms": practice(counts, seed, tasks)} if forms == "well" else files


def look(scene: Scene, random: Random, turns: int) -> Row:
    """Looks at some cells and for some things, at each at most once; now and then a cell is empty."""
    empty = sorted(set(range(len(PLACES))) - {thing.cell for thing in scene.things})
    things = random.sample(scene.things, min(turns, len(scene.things)))
    said = [_look_at(thing, random) if random.random() < 0.5 else _look_for(scene, thing, random) for thing in things]
    if random.random() < EMPTY * len(said):
        said[random.randrange(len(said))] = (random.choice(LOOKS).format(place=PLACES[random.choice(empty)]), "nothing")
    return Row(scene, tuple(text for turn in said for text in turn))


def _look_at(thing: Thing, random: Random) -> tuple[str, str]:
    """Describes the content of a place."""
    return random.choice(LOOKS).format(place=place(thing)), f"a {phrase(thing)}"


def _look_for(scene: Scene, thing: Thing, random: Random) -> tuple[str, str]:
    """Refers to a thing by one of its names, if it has one of its own."""
    if not (found := references(scene, thing, ("place",))):
        return _look_at(thing, random)
    return f"look for the {random.choice(found)} .", f"a {phrase(thing)} in the {place(thing)}"


def verbose(scene: Scene, random: Random) -> Row:
    """Asks for long answers, in one turn or two."""
    short = ("object", "location", "color", "presence")
    two = random.random() < TWO_TURNS
    turns = [_verbose_turn(scene, random, short) for _ in range(2)] if two else [_verbose_turn(scene, random)]
    return Row(scene, tuple(text for turn in turns for text in (turn.question, turn.answer)))


def whole(scene: Scene, random: Random) -> Row:
    """Asks for a description of everything, in one of the wordings of `WHOLE`."""
    turn = describe(scene, random, WHOLE)
    return Row(scene, (turn.question, turn.answer))


def polish(counts: Counts, seed: int, tasks: Mapping[str, Task]) -> list[Row]:
    """Asks for long answers, and for a few short ones of most of the fine-tuning tasks."""
    tasted = {name: task for name, task in tasks.items() if task.tasted}
    rows = _each(counts.polish - counts.short, counts, seed, "polish", verbose)
    rows += _short(tasted, counts.short, counts, seed, "taste")
    return Random(f"{seed}/polish").sample(rows, len(rows))


def practice(counts: Counts, seed: int, tasks: Mapping[str, Task]) -> list[Row]:
    """Asks for as many long answers as `polish` has rows, for further descriptions, and for many short answers of each task."""
    rows = _each(counts.polish, counts, seed, "forms", verbose) + _each(counts.whole, counts, seed, "whole", whole)
    rows += _short(tasks, counts.practice, counts, seed, "forms")
    return Random(f"{seed}/forms").sample(rows, len(rows))


def _short(tasks: Mapping[str, Task], rows: int, counts: Counts, seed: int, key: str) -> list[Row]:
    """Asks for short answers, equally many of each task."""
    found = []
    for number, (name, task) in enumerate(tasks.items()):
        share = rows // len(tasks) + (number < rows % len(tasks))
        found += ask_rows(task, share, "basin", seed, f"{key}/{name}", counts.scenes)
    return found


def _each(
    rows: int, counts: Counts, seed: int, key: str, make: Callable[[Scene, Random], Row], crowd: str = "few"
) -> list[Row]:
    """Makes rows for one scene after another, repeatedly."""
    random = Random(f"{seed}/basin/{key}")
    start = random.randrange(counts.scenes)
    return [make(_scene((start + number) % counts.scenes, seed, crowd), random) for number in range(rows)]


def _scene(number: int, seed: int, crowd: str) -> Scene:
    written = number % 100 < 100 * WRITTEN and written_digits() is not None
    return make_scene("basin", seed, number, written, crowd)


def _verbose_turn(scene: Scene, random: Random, kinds: tuple[str, ...] = tuple(ASK)) -> Turn:
    turn = None
    while not turn:
        kind = random.choice(kinds)
        turn = ASK[kind](scene, random, WORDINGS[kind])
    return turn
