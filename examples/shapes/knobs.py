"""Two knobs of the world: how much of what is to be learnt all datasets share, and how much is each dataset's own.

* `shared`: that share of the rows of every fine-tuning dataset asks with all its words in reversed order, which theta0 has never
  met. The hint at the answer form is reversed with the question: one that theta0 can read is answered well enough without
  reading the question in order, and nothing would be left to learn. The skill suites ask all their questions so as soon as the
  share is above 0: their questions are then the same for every share, and how well they are answered measures how much of the
  common skill was learnt.
* `private`: that share of the datasets of `PLAIN` keeps an answer form of its own. The others answer in the plain form, and
  the suites expect of each task the form that its dataset teaches.

Both are doses: of two values the larger reverses the questions, or keeps the own forms, of the smaller and more.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from merit_jax.examples.shapes.scenes import Scene
from merit_jax.examples.shapes.tasks import TASKS
from merit_jax.examples.shapes.tasks.captions import terse
from merit_jax.examples.shapes.tasks.choice import by_text
from merit_jax.examples.shapes.tasks.colors import color
from merit_jax.examples.shapes.tasks.counts import count
from merit_jax.examples.shapes.tasks.judgements import exists
from merit_jax.examples.shapes.tasks.places import location
from merit_jax.examples.shapes.tasks.shapes import shape
from merit_jax.examples.shapes.tasks.task import HINT_OPTION, Asked, Row, Task
from merit_jax.examples.shapes.tasks.text import digit
from merit_jax.examples.shapes.words import noun, pick


@dataclass(frozen=True)
class Knobs:
    """The knobs; the defaults are the shipped world.

    Attributes:
        shared: Share of each dataset's questions that are asked in reversed order, 0 to 1.
        private: Share of the datasets of `PLAIN` that keep their own answer form, 0 to 1.

    Raises:
        ValueError: A share is below 0 or above 1.
    """

    shared: float = 0.0
    private: float = 1.0

    def __post_init__(self) -> None:
        for name in ("shared", "private"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name}: got {value}, expected a share from 0 to 1")

    @property
    def own_forms(self) -> tuple[str, ...]:
        """The datasets of `PLAIN` that keep their own answer form."""
        return tuple(PLAIN)[: round(self.private * len(PLAIN))]

    def tasks(self) -> dict[str, Task]:
        """Returns the tasks of `TASKS`, each with its own answer form or the plain one."""
        plain = {name: task for name, task in PLAIN.items() if name not in self.own_forms}
        return {name: plain.get(name, task) for name, task in TASKS.items()}

    def reverse_some(self, rows: Sequence[Row], key: str) -> list[Row]:
        """Returns the rows of a dataset, a share of them with reversed questions.

        Args:
            rows: The rows.
            key: Name of the dataset. The numbers of the reversed rows follow from it and from nothing else, so they are the same
                for every seed of the world.

        Returns:
            The rows, in their order.
        """
        order = Random(f"reversed/{key}").sample(range(len(rows)), len(rows))
        chosen = set(order[: round(self.shared * len(rows))])
        return [reverse(row) if number in chosen else row for number, row in enumerate(rows)]

    def reverse_skill(self, rows: Sequence[Row]) -> list[Row]:
        """Returns the rows of a skill suite: all of them with reversed questions if any dataset has some."""
        return [reverse(row) for row in rows] if self.shared else list(rows)


def reverse(row: Row) -> Row:
    """Returns a row of one turn with the words of its question in reversed order.

    Examples:
        >>> row = Row(Scene("mixture-s00000", ()), ("what color is the ring ? answer with one color word .", "red"))
        >>> reverse(row).turns
        ('. word color one with answer ? ring the is color what', 'red')
    """
    question, answer = row.turns
    return row._replace(turns=(" ".join(reversed(question.split())), answer))


def _noun_of(scene: Scene, random: Random) -> Asked | None:
    """Asks what a thing is."""
    found = pick(scene, random, hide=("noun",))
    return found and Asked({"ref": found[1]}, noun(found[0]))


PLAIN = {
    "color_sentence": TASKS["color_sentence"]._replace(ask=color),
    "location_code": TASKS["location_code"]._replace(ask=location),
    "digit_word": TASKS["digit_word"]._replace(ask=digit),
    "caption_count": TASKS["caption_count"]._replace(ask=terse),
    "color_synonym": TASKS["color_synonym"]._replace(ask=color),
    "exists_true_false": TASKS["exists_true_false"]._replace(
        ask=exists,
        wordings=(
            "is it true that there is a {what} ?",
            "there is a {what} in the picture . is that true ?",
            "the picture shows a {what} . is that true ?",
        ),
    ),
    "object_class": TASKS["object_class"]._replace(ask=_noun_of),
    "count_word": TASKS["count_word"]._replace(ask=count),
    "shape_class": TASKS["shape_class"]._replace(ask=shape),
    "choice_letter": TASKS["choice_letter"]._replace(ask=by_text, hint=HINT_OPTION),
    "tags": TASKS["tags"]._replace(ask=terse),
}
"""Dataset with an answer form of its own -> its task in the plain form, that of another dataset about the same fact.

`private` keeps the own forms of the first ones. The other 21 datasets answer in the plain form, or ask for what no other
dataset does."""

DEFAULTS = Knobs()
"""The knobs of the shipped world."""
