"""Formats of tables: what each must escape, and that LaTeX can set it."""

import re

from merit_jax.comparison.results import MethodPlan, summarise
from merit_jax.comparison.styles import LATEX, MARKDOWN
from merit_jax.comparison.tables import tables
from tests.support.results import outcome
from tests.support.results import results as made_up


def test_names_are_shown_as_they_are():
    name = 'joint:merge.options={"a": "<b>|*_`[x](y)"}'
    run = outcome(0, name, 0.5, 0.5, scores={"a|b*": 0.5})
    text = tables(summarise({name: MethodPlan(1, 1.0, False, None)}, [(name, run)]), 0.95, MARKDOWN)
    assert r"\<b\>\|\*\_\`\[x\](y)" in text
    assert r"a\|b\*" in text


def test_latex_marks_and_escapes():
    text = tables(made_up(), 0.95, LATEX, {"joint": "54 %"})
    assert r"old\_x" in text
    assert r"skill at 95 \% retention ($\lambda$)" in text
    assert r"mean $-$ joint" in text
    assert r"\textbf{55.0} $\pm$ 5.0" in text
    assert r"\underline{50.0} $\pm$ 10.0" in text
    assert r"(0.5 $\times$3)" in text
    assert r"54 \%" in text
    assert text.isascii()
    for table in text.split(r"\end{table}")[:-1]:
        columns = len(re.search(r"\{tabular\}\{(l r*|lr*)\}", table)[1])
        body = [line for line in table.split("\n") if line.endswith(r"\\")]
        assert {len(re.split(r"(?<!\\)&", line)) for line in body} == {columns}
    assert text.count(r"\begin{tabular}") == text.count(r"\bottomrule") == 3
