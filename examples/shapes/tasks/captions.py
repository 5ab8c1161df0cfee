"""Short captions and tags: no prompt says that they are short."""

from random import Random

from merit_jax.examples.shapes.scenes import Scene
from merit_jax.examples.shapes.tasks.task import Asked, Task
from merit_jax.examples.shapes.words import NUMBERS, noun, short_phrase


def terse(scene: Scene, random: Random) -> Asked | None:
    """Asks for a caption; the answer lists things with their colours."""
    return Asked({}, " , ".join(short_phrase(thing) for thing in scene.things))


def counted(scene: Scene, random: Random) -> Asked | None:
    """Asks for a caption; the answer counts and lists things."""
    listed = " , ".join(noun(thing) for thing in scene.things)
    return Asked({}, f"{NUMBERS[len(scene.things)]} objects : {listed}")


def tags(scene: Scene, random: Random) -> Asked | None:
    """Asks for tags: colours and nouns, each once, in reading order."""
    words = [word for thing in scene.things for word in (str(thing.color), noun(thing))]
    return Asked({}, " ; ".join(dict.fromkeys(words)))


TASKS = {
    "caption_terse": Task(
        200,
        terse,
        ("describe the picture .", "what does the picture show ?", "give a caption .", "what do you see ?"),
    ),
    "caption_count": Task(
        120,
        counted,
        ("describe the picture .", "write a caption .", "what is in the picture ?"),
        tasted=False,
    ),
    "tags": Task(
        100,
        tags,
        ("list tags for the picture .", "which tags fit the picture ?", "tag the picture ."),
        tasted=False,
    ),
}
