"""Keeps a question out of its own worked examples in tasks of lm-evaluation-harness. Needs the extra `eval`."""

from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.task import Task

Doc = Mapping[str, Any]


def exclude_question(task: Task) -> None:
    """Lets no worked example of a task be the question itself, whatever split it comes from.

    The harness compares whole rows, and only where the examples' split is the test split by name. Here the words of a question
    count, with its options. A prompt whose examples are other questions anyway is the harness's own.

    Args:
        task: A task that is loaded; its sampler and `fewshot_context` are wrapped.
    """
    sampler = getattr(task, "sampler", None)
    if sampler is None:
        return
    context, draw = task.fewshot_context, sampler.sample
    asked: list[Any] = [None]

    def fewshot_context(doc: Doc, *args: Any, **options: Any) -> Any:
        asked[0] = _question(task, doc)
        return context(doc, *args, **options)

    def sample(n: int, *args: Any, **options: Any) -> Sequence[Doc]:
        drawn = draw(n, *args, **options)
        if all(_question(task, doc) != asked[0] for doc in drawn):
            return drawn
        whole = sampler.fewshot_docs()
        others = [doc for doc in whole if _question(task, doc) != asked[0]]
        if len(others) < n:
            raise ValueError(
                f"task {task.config.task}: {n} worked examples (shots) are wanted, there are {len(others)} beside the question "
                "itself; lower `shots`, or name another fewshot_split"
            )
        sampler.df = others
        try:
            return draw(n)
        finally:
            sampler.df = whole

    task.fewshot_context, sampler.sample = fewshot_context, sample


def _question(task: Task, doc: Doc) -> Any:
    """Returns what makes a question: its words and its options; the whole row where it has no words of its own."""
    text = task.doc_to_text(doc)
    if not isinstance(text, str) or not text.strip():
        return dict(doc)
    options = task.doc_to_choice(doc) if task.config.doc_to_choice else None
    return text.strip(), options
