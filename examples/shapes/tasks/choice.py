"""Multiple choice, answered by the option or by its letter."""

from random import Random

from merit_jax.examples.shapes.scenes import COLORS, SHAPES, Scene
from merit_jax.examples.shapes.tasks.colors import color
from merit_jax.examples.shapes.tasks.places import location
from merit_jax.examples.shapes.tasks.shapes import shape
from merit_jax.examples.shapes.tasks.task import HINT_OPTION, Asked, Task
from merit_jax.examples.shapes.words import PLACES

LABELS = ("a", "b", "c")
KINDS = (
    (color, COLORS, "what color is the {ref} ?"),
    (shape, SHAPES, "what shape is the {ref} ?"),
    (location, PLACES, "where is the {ref} ?"),
)


def by_text(scene: Scene, random: Random) -> Asked | None:
    """Asks for a colour, shape or place out of three."""
    ask, answers, wording = random.choice(KINDS)
    if not (asked := ask(scene, random)):
        return None
    wrong = random.sample([answer for answer in answers if answer != asked.answer], len(LABELS) - 1)
    options = tuple(random.sample([asked.answer, *wrong], len(LABELS)))
    return Asked({"ask": wording.format(**asked.slots), "listed": " , ".join(options)}, asked.answer, options)


def by_letter(scene: Scene, random: Random) -> Asked | None:
    """Asks for the letter of the option."""
    if not (asked := by_text(scene, random)):
        return None
    listed = " , ".join(f"{label} : {option}" for label, option in zip(LABELS, asked.options, strict=True))
    return Asked({**asked.slots, "listed": listed}, LABELS[asked.options.index(asked.answer)], LABELS)


TASKS = {
    "choice_letter": Task(
        120,
        by_letter,
        ("{ask} options : {listed} .", "{ask} choose from {listed} .", "options : {listed} . {ask}"),
        "answer with the letter of the option .",
    ),
    "choice_text": Task(
        260,
        by_text,
        ("{ask} options : {listed} .", "{ask} choose from {listed} .", "options : {listed} . {ask}"),
        HINT_OPTION,
    ),
}
