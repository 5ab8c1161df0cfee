"""Colours: the same fact as a word, as another word, in a sentence, and as yes or no."""

from random import Random

from merit_jax.examples.shapes.scenes import COLORS, Scene
from merit_jax.examples.shapes.tasks.task import HINT_COLOR, HINT_YES_NO, YES_NO, Asked, Task
from merit_jax.examples.shapes.words import SYNONYMS, pick


def color(scene: Scene, random: Random) -> Asked | None:
    """Asks for a colour."""
    if not (found := pick(scene, random, hide=("color",))):
        return None
    return Asked({"ref": found[1]}, str(found[0].color))


def synonym(scene: Scene, random: Random) -> Asked | None:
    """Asks for a colour by its other name."""
    asked = color(scene, random)
    return asked and asked._replace(answer=SYNONYMS[asked.answer])


def sentence(scene: Scene, random: Random) -> Asked | None:
    """Asks for a colour in a sentence."""
    asked = color(scene, random)
    return asked and asked._replace(answer=f"the {asked.slots['ref']} is {asked.answer} .")


def is_color(scene: Scene, random: Random) -> Asked | None:
    """Asks whether a thing has a colour; a wrong one is often that of another thing."""
    if not (asked := color(scene, random)):
        return None
    answer, named = random.choice(YES_NO), asked.answer
    if answer == "no":
        others = sorted({str(thing.color) for thing in scene.things} - {named, "None"})
        named = random.choice(others if others and random.random() < 0.5 else [c for c in COLORS if c != named])
    return Asked({**asked.slots, "color": named}, answer, YES_NO)


TASKS = {
    "color_word": Task(
        280,
        color,
        (
            "what color is the {ref} ?",
            "which color does the {ref} have ?",
            "name the color of the {ref} .",
            "the {ref} : which color is it ?",
        ),
        HINT_COLOR,
    ),
    "color_synonym": Task(
        160,
        synonym,
        ("what color is the {ref} ?", "which shade does the {ref} have ?", "name the shade of the {ref} ."),
    ),
    "color_sentence": Task(
        200,
        sentence,
        ("what color is the {ref} ?", "which color is the {ref} ?", "tell me the color of the {ref} ."),
    ),
    "color_yes_no": Task(
        200,
        is_color,
        (
            "is the {ref} {color} ?",
            "does the {ref} have the color {color} ?",
            "would you call the {ref} {color} ?",
        ),
        HINT_YES_NO,
    ),
}
