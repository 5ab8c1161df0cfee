"""A template is looked at before it is compiled."""

import pytest

from merit_jax.data.templates import check_template
from tests.support.tiny_tokenizer import CHATML
from tests.support.tiny_vision import TEMPLATE


@pytest.mark.parametrize(
    "template", [CHATML, TEMPLATE, "{{ ' ' * 8 * loop.index }}", "{# #}", "{{ '%05d' | format(1) }}"]
)
def test_what_conversations_need_is_taken(template):
    check_template(template)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ 10**12 }}", "has a power at line 1"),
        ("\n{{ 'a' * 10000000 }}", "has a product of more than 1000000 at line 2"),
        ("{{ ('a' * 10000) * 10000 }}", "has a product of more than 1000000"),
        ("{{ messages[0] | center(10000000) }}", "has a number above 1000000"),
        ("{{ '%1000000000d' | format(1) }}", "has a number above 1000000"),
        ("{{ '{:>1000000000}'.format(1) }}", "has a number above 1000000"),
        ("{% if", "is damaged at line 1"),
        ("{{ " + "(" * 5000, "cannot be parsed"),
    ],
)
def test_what_fills_the_memory_or_is_no_template_is_refused(template, reason):
    with pytest.raises(ValueError, match=f"the chat template {reason}"):
        check_template(template)
