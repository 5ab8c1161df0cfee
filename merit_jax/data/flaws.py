"""Says which rows of a dataset would train less than they say, and refuses a dataset that has too many."""

from collections.abc import Sequence

from merit_jax.core.types import ReadReport

MAX_FLAWED = 0.5
"""Default for the largest share of a dataset's training rows that may have one flaw."""


def flaw_sentences(name: str, report: ReadReport) -> list[tuple[float, str]]:
    """Returns (share of the rows, sentence) of every flaw that a dataset's training rows have.

    Args:
        name: The dataset.
        report: Counts from reading it.

    Examples:
        >>> report = ReadReport(("a.jsonl",), "", 8, 0, 0, 0, unseen=2, first_unseen="a.jsonl:3: message 1 (system)")
        >>> [(share, sentence[:110]) for share, sentence in flaw_sentences("a", report)]
        [(0.25, "dataset 'a': 2 of 8 training rows have a text that the chat template leaves out (first a.jsonl:3: message 1 (s")]
    """
    found = []
    if report.unended:
        found.append(
            (
                report.unended / report.rows,
                f"dataset {name!r}: {report.unended:,} of {report.rows:,} training rows have a response that ends in no special "
                "token, so that the model does not learn to stop; let the chat template write its end-of-turn token (such as "
                "{{ eos_token }}) behind each response, inside {% generation %} where it has that",
            )
        )
    if report.unseen:
        first = f" (first {report.first_unseen})" if report.first_unseen else ""
        found.append(
            (
                report.unseen / report.rows,
                f"dataset {name!r}: {report.unseen:,} of {report.rows:,} training rows have a text that the chat template leaves "
                f"out{first}; take a template that writes it, or take it out of the rows (some templates leave out the reasoning "
                "of earlier turns on purpose: a row for each turn trains it all)",
            )
        )
    return found


def refuse_flawed(name: str, report: ReadReport, max_flawed: float) -> None:
    """Refuses a dataset.

    Args:
        name: The dataset.
        report: Counts from reading it.
        max_flawed: Largest share of its training rows that may have one flaw.

    Raises:
        ValueError: More have it.
    """
    if too_many := excess(flaw_sentences(name, report), max_flawed):
        raise ValueError(too_many[0])


def excess(sentences: Sequence[tuple[float, str]], max_flawed: float) -> list[str]:
    """Returns the sentences of the shares above `max_flawed`, with what to do about the refusal."""
    mend = f"; more than mixture.max_flawed = {max_flawed:g} of them: mend it, or set mixture.max_flawed=1 to train them so"
    return [sentence + mend for share, sentence in sentences if share > max_flawed]
