"""Rows that would train less than they say are counted for each dataset, and too many of them are refused."""

import json

import pytest

from merit_jax.data.mixture import load_mixture
from tests.support.templates import LLAVA, WITHOUT_SYSTEM
from tests.support.tiny_tokenizer import CHATML, tiny_tokenizer

ENDED = CHATML.replace("'<|im_end|>\n' }}", "('' if 'open' in message['content'] else '<|im_end|>') + '\n' }}")
OPEN = {"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "open"}]}
GOOD = {"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]}
SYSTEM = {"messages": [{"role": "system", "content": "Sys."}, *GOOD["messages"]]}


def load(folder, template, rows, **options):
    (folder / "a.train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (found,) = load_mixture(f"{folder}/*.train.jsonl", tiny_tokenizer(template), max_length=200, seed=0, **options)
    return found.report


@pytest.mark.parametrize(
    ("template", "rows", "counts", "sentence"),
    [
        (
            ENDED,
            [OPEN, GOOD, GOOD],
            (1, 0),
            "dataset 'a': 1 of 3 training rows have a response that ends in no special token",
        ),
        (
            WITHOUT_SYSTEM,
            [GOOD, SYSTEM],
            (0, 1),
            r"dataset 'a': 1 of 2 training rows have a text .* \(first .*:2: message 1 \(sys",
        ),
        (CHATML, [GOOD, SYSTEM], (0, 0), None),
    ],
)
def test_flawed_rows_are_counted_told_and_kept_in_the_cache(tmp_path, caplog, template, rows, counts, sentence):
    for _ in range(2):
        report = load(tmp_path, template, rows, cache_dir=tmp_path / "cache")
        assert (report.unended, report.unseen) == counts
    if sentence is None:
        assert not caplog.records
        return
    first, second = (record.getMessage() for record in caplog.records)
    assert second == first.replace(f" (first {tmp_path}/a.train.jsonl:2: message 1 (system))", "")
    with pytest.raises(ValueError, match=rf"{sentence}.*more than mixture.max_flawed = 0.2 of them: mend it"):
        load(tmp_path, template, rows, max_flawed=0.2)


def test_a_template_that_never_ends_a_response_is_refused_unless_that_is_wanted(tmp_path):
    with pytest.raises(
        ValueError, match=r"2 of 2 training rows .* no special token.* \{\{ eos_token \}\}\).*max_flawed=1 to train"
    ):
        load(tmp_path, LLAVA, [GOOD, GOOD])
    assert load(tmp_path, LLAVA, [GOOD, GOOD], max_flawed=1.0).unended == 2
    mended = LLAVA.replace(
        "{{ message['content'] + ' ' }}{% endgeneration %}", "{{ message['content'] + eos_token }}{% endgeneration %}"
    )
    assert load(tmp_path, mended, [GOOD, GOOD]).unended == 0
