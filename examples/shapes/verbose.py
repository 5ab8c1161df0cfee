"""Long answers in full sentences, as an instruction-tuned model gives and as terse datasets unlearn."""

from random import Random
from typing import NamedTuple

from merit_jax.examples.shapes.scenes import Scene
from merit_jax.examples.shapes.tasks.judgements import exists
from merit_jax.examples.shapes.words import NUMBERS, noun, phrase, pick, place, short_phrase

ALL = ("shape", "letter", "digit", "written")

WORDINGS = {
    "scene": (
        "describe the picture in detail .",
        "tell me about the picture .",
        "what can you see in the picture ?",
        "give a full description of the picture .",
        "please tell me everything about the picture .",
        "please describe all objects and their places .",
        "please explain what the picture shows .",
    ),
    "object": (
        "describe the {ref} .",
        "tell me about the {ref} .",
        "what can you say about the {ref} ?",
        "please explain what the {ref} looks like .",
    ),
    "location": (
        "tell me where the {ref} is .",
        "where can i see the {ref} ?",
        "please explain where the {ref} is .",
        "can you tell me the place of the {ref} ?",
    ),
    "color": (
        "can you tell me the color of the {ref} ?",
        "please explain which color the {ref} has .",
        "what can you say about the color of the {ref} ?",
        "describe the color of the {ref} .",
    ),
    "presence": (
        "please tell me : is there a {what} ?",
        "please explain : does the picture show a {what} ?",
        "tell me , can you see a {what} in the picture ?",
        "please look at the picture . do you see a {what} ?",
    ),
}
"""What is asked -> question templates, those of theta0's data."""


class Turn(NamedTuple):
    """A question and its long answer.

    Attributes:
        question: The question.
        answer: The answer.
        facts: Facts that the answer should mention.
    """

    question: str
    answer: str
    facts: tuple[str, ...]


def describe(scene: Scene, random: Random, wordings: tuple[str, ...]) -> Turn:
    """Asks for a description of everything."""
    items = [f"a {phrase(thing)} in the {place(thing)}" for thing in scene.things]
    listed = " , ".join(items[:-1]) + " and " + items[-1]
    answer = f"the picture shows {NUMBERS[len(items)]} objects : {listed} ."
    facts = dict.fromkeys(fact for thing in scene.things for fact in (short_phrase(thing), place(thing)))
    return Turn(random.choice(wordings), answer, tuple(facts))


def describe_object(scene: Scene, random: Random, wordings: tuple[str, ...]) -> Turn | None:
    """Asks for a description of one thing."""
    if not (found := pick(scene, random, (), ALL)):
        return None
    thing, name = found
    answer = f"the {name} is a {phrase(thing)} , and it is in the {place(thing)} of the picture ."
    facts = tuple(fact for fact in (thing.size, short_phrase(thing), place(thing)) if fact)
    return Turn(random.choice(wordings).format(ref=name), answer, facts)


def locate(scene: Scene, random: Random, wordings: tuple[str, ...]) -> Turn | None:
    """Asks where a thing is."""
    if not (found := pick(scene, random, ("place",), ALL)):
        return None
    thing, name = found
    answer = f"the {name} is in the {place(thing)} of the picture ."
    return Turn(random.choice(wordings).format(ref=name), answer, (place(thing),))


def tell_color(scene: Scene, random: Random, wordings: tuple[str, ...]) -> Turn | None:
    """Asks for the colour of a thing."""
    if not (found := pick(scene, random, ("color",))):
        return None
    thing, name = found
    answer = f"the color of the {name} is {thing.color} ."
    return Turn(random.choice(wordings).format(ref=name), answer, (str(thing.color),))


def tell_presence(scene: Scene, random: Random, wordings: tuple[str, ...]) -> Turn | None:
    """Asks whether something is there, and where."""
    if not (asked := exists(scene, random)):
        return None
    what = asked.slots["what"]
    where = next((place(thing) for thing in scene.things if what in (noun(thing), short_phrase(thing))), None)
    answer = f"yes , there is a {what} in the {where} of the picture ." if where else f"no , there is no {what} ."
    return Turn(random.choice(wordings).format(what=what), answer, (where or "no",))


ASK = {
    "scene": describe,
    "object": describe_object,
    "location": locate,
    "color": tell_color,
    "presence": tell_presence,
}
"""What is asked -> the function that asks it."""
