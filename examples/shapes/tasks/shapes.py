"""Shapes: shape, class of shape, kind of thing, size; the larger of two."""

from random import Random

from merit_jax.examples.shapes.scenes import SIZES, Scene
from merit_jax.examples.shapes.tasks.task import HINT_SHAPE, Asked, Task
from merit_jax.examples.shapes.words import CLASSES, noun, pick, references


def shape(scene: Scene, random: Random) -> Asked | None:
    """Asks for a shape."""
    if not (found := pick(scene, random, hide=("noun",), kinds=("shape",))):
        return None
    return Asked({"ref": found[1]}, found[0].name)


def shape_class(scene: Scene, random: Random) -> Asked | None:
    """Asks for a shape in another label vocabulary: round or angular."""
    asked = shape(scene, random)
    return asked and asked._replace(answer=CLASSES[asked.answer])


def kind(scene: Scene, random: Random) -> Asked | None:
    """Asks what kind of object a thing is: shape, letter or digit."""
    found = pick(scene, random, hide=("noun",))
    return found and Asked({"ref": found[1]}, found[0].kind)


def size(scene: Scene, random: Random) -> Asked | None:
    """Asks whether a shape is large or small."""
    found = pick(scene, random, kinds=("shape",))
    return found and Asked({"ref": found[1]}, str(found[0].size), SIZES)


def larger(scene: Scene, random: Random) -> Asked | None:
    """Asks which of two shapes of different size is larger."""
    named = [thing for thing in scene.of_kind("shape") if noun(thing) in references(scene, thing)]
    pairs = [(a, b) for a in named for b in named if a.size == "large" and b.size == "small"]
    if not pairs:
        return None
    pair = random.choice(pairs)
    first, second = random.sample(pair, 2)
    return Asked({"a": noun(first), "b": noun(second)}, noun(pair[0]))


TASKS = {
    "shape_noun": Task(
        280,
        shape,
        ("what shape is the {ref} ?", "which shape does the {ref} have ?", "name the shape of the {ref} ."),
        HINT_SHAPE,
    ),
    "shape_class": Task(
        120,
        shape_class,
        ("what shape is the {ref} ?", "which kind of shape is the {ref} ?", "how is the {ref} shaped ?"),
        tasted=False,
    ),
    "object_class": Task(
        100,
        kind,
        ("what is the {ref} ?", "what kind of object is the {ref} ?", "which kind of thing is the {ref} ?"),
        tasted=False,
    ),
    "size_word": Task(
        120,
        size,
        ("how large is the {ref} ?", "what size does the {ref} have ?", "which size is the {ref} ?"),
        "answer large or small .",
    ),
    "larger_object": Task(
        160,
        larger,
        (
            "which is larger , the {a} or the {b} ?",
            "the {a} or the {b} : which one is larger ?",
            "compare the {a} with the {b} . which one has the larger size ?",
        ),
    ),
}
