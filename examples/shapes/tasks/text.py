"""Reading: letters, printed digits, handwritten digits."""

from random import Random

from merit_jax.examples.shapes.scenes import Scene
from merit_jax.examples.shapes.tasks.task import HINT_DIGIT, HINT_LETTER, Asked, Task
from merit_jax.examples.shapes.words import NUMBERS


def _only(scene: Scene, kind: str) -> Asked | None:
    things = scene.of_kind(kind)
    return Asked({}, things[0].name) if len(things) == 1 else None


def letter(scene: Scene, random: Random) -> Asked | None:
    """Asks for the only letter."""
    return _only(scene, "letter")


def letters(scene: Scene, random: Random) -> Asked | None:
    """Asks for two or more letters, in reading order."""
    found = scene.of_kind("letter")
    return Asked({}, " ".join(thing.name for thing in found)) if len(found) > 1 else None


def digit(scene: Scene, random: Random) -> Asked | None:
    """Asks for the only printed digit."""
    return _only(scene, "digit")


def digit_in_words(scene: Scene, random: Random) -> Asked | None:
    """Asks for the only printed digit, as a word."""
    asked = _only(scene, "digit")
    return asked and Asked({}, NUMBERS[int(asked.answer)])


def written(scene: Scene, random: Random) -> Asked | None:
    """Asks for the handwritten digit."""
    return _only(scene, "written")


def parity(scene: Scene, random: Random) -> Asked | None:
    """Asks whether the handwritten digit is even."""
    asked = _only(scene, "written")
    return asked and Asked({}, ("even", "odd")[int(asked.answer) % 2], ("even", "odd"))


TASKS = {
    "ocr_letter": Task(
        240,
        letter,
        ("which letter is in the picture ?", "read the letter .", "what letter do you see ?"),
        HINT_LETTER,
    ),
    "ocr_all": Task(
        260,
        letters,
        ("read all letters .", "which letters are in the picture ?", "spell out the letters you see ."),
    ),
    "digit_digit": Task(
        200,
        digit,
        ("which digit is in the picture ?", "read the digit .", "what number is shown ?"),
        HINT_DIGIT,
    ),
    "digit_word": Task(
        120,
        digit_in_words,
        ("which digit is in the picture ?", "what number is shown ?", "name the number ."),
        tasted=False,
    ),
    "written_digit": Task(
        120,
        written,
        ("which digit is written by hand ?", "read the written digit .", "what is the written number ?"),
        HINT_DIGIT,
        written=True,
    ),
    "written_parity": Task(
        100,
        parity,
        (
            "is the written digit even or odd ?",
            "the written number : even or odd ?",
            "would you call the written digit even or odd ?",
        ),
        written=True,
        tasted=False,
    ),
}
