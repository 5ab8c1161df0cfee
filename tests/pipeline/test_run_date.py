"""A chat template that shows the date shows one date in all stages of a run, whatever day they are run on."""

import datetime

import pytest

from merit_jax.data.chat_template import encode_prompt, tokenizer_digest
from merit_jax.data.template_source import fix_date, fixed_date
from merit_jax.launch.wiring import open_run
from merit_jax.pipeline import run_date
from merit_jax.pipeline.read_mixture import read_mixture
from merit_jax.workdir.artifacts import read_json
from tests.support import world
from tests.support.templates import DATED
from tests.support.tiny_tokenizer import CHATML, tiny_tokenizer

ONE, OTHER = datetime.date(2026, 3, 5), datetime.date(2026, 11, 26)
QUESTION = ({"role": "user", "content": "a"},)


def shown(tokenizer):
    return tokenizer.decode(encode_prompt(tokenizer, QUESTION)).splitlines()[0]


@pytest.mark.parametrize("form", ["%d %b %Y", "%A, %-d. %B %y", "%Y-%m-%d %H:%M:%S|%%d|%j|%e", "none"])
def test_a_fixed_date_is_written_as_strftime_writes_it(form):
    tokenizer = tiny_tokenizer("{{ strftime_now('" + form + "') }}\n" + CHATML)
    fix_date(tokenizer, ONE)
    assert shown(tokenizer) == datetime.datetime(2026, 3, 5).strftime(form)


def test_the_rest_of_a_template_is_rendered_as_before():
    template = "\n  {%- if strftime_now is defined %}\n{{ 'x' }}\n  {% endif %}\n" + CHATML
    tokenizer, fixed = tiny_tokenizer(template), tiny_tokenizer(template)
    fix_date(fixed, ONE)
    assert encode_prompt(fixed, QUESTION).tolist() == encode_prompt(tokenizer, QUESTION).tolist()


def test_the_date_is_part_of_the_digest_only_where_it_is_shown():
    digests = []
    for template, date in ((DATED, ONE), (DATED, OTHER), (CHATML, ONE), (CHATML, OTHER)):
        tokenizer = tiny_tokenizer(template)
        fix_date(tokenizer, date)
        assert fixed_date(tokenizer) == (str(date) if template is DATED else None)
        digests.append(tokenizer_digest(tokenizer))
    assert digests[0] != digests[1]
    assert digests[2] == digests[3] == tokenizer_digest(tiny_tokenizer(CHATML))


def test_a_run_keeps_the_date_of_its_first_day(tmp_path, monkeypatch):
    config = world.config(tmp_path)
    tiny_tokenizer(DATED).save_pretrained(tmp_path / "theta0")

    def opened(day, workdir="run"):
        monkeypatch.setattr(run_date, "_today", lambda: day)
        return open_run.open_run(config, tmp_path / workdir)

    first = opened(ONE)
    read_mixture(first)
    assert read_json(first.workdir.mixture)["inputs"]["text"]["date"] == "2026-03-05"
    again, new = opened(OTHER), opened(OTHER, "new")
    assert again.text_inputs == first.text_inputs
    assert shown(again.tokenizer) == "Today is 05 Mar 2026."
    assert new.text_inputs["date"] == "2026-11-26"
    assert new.text_inputs["tokenizer"] != first.text_inputs["tokenizer"]
    first.workdir.mixture.rename(first.workdir.partition)  # as on a machine that has the partition alone
    assert opened(OTHER).text_inputs == first.text_inputs
