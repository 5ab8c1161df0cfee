"""The fine-tuning datasets: kinds of question that conflict the way those of real mixtures do."""

from merit_jax.examples.shapes.tasks import (
    captions,
    choice,
    colors,
    counts,
    judgements,
    places,
    relations,
    shapes,
    text,
)

TASKS = {
    name: task
    for group in (colors, counts, text, shapes, places, judgements, choice, relations, captions)
    for name, task in group.TASKS.items()
}
"""Name of a dataset -> its task."""
