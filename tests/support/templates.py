"""Chat templates of the kinds that models have, reduced to what sets them apart."""

from tests.support.tiny_tokenizer import CHATML, CHATML_GENERATION

HELLO = ({"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "yes, there"})
TWO_TURNS = (
    {"role": "system", "content": "Sys."},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": "two"},
    {"role": "user", "content": "three"},
    {"role": "assistant", "content": "four"},
)
"""Conversations to render."""
LLAMA2 = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<s>[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + ' </s>' }}{% endif %}{% endfor %}"
)
SMOLLM3 = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ '<|im_start|>assistant\n' + message['content'] + '<|im_end|>\n' }}{% endgeneration %}"
    "{% else %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAVA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% if message['role'] != 'assistant' %}{{ message['content'] + ' ' }}"
    "{% else %}{% generation %}{{ message['content'] + ' ' }}{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
"""LLaVA-1.5's: a space is between the generation prompt and the block, and no token ends a turn."""
QWEN3 = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}{% generation %}"
    "{% if loop.last %}{{ '<think>\n' + (message.reasoning_content or '') + '\n</think>\n\n' }}{% endif %}"
    "{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
"""A thinking Qwen3's: the generation prompt opens the reasoning, and only the last turn keeps it."""
DEEPSEEK = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}{{ '<|im_start|>assistant\n' + message.content.split('</think>')[-1] + '<|im_end|>' }}"
    "{% else %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
)
"""DeepSeek-R1's: the generation prompt opens a reasoning that no conversation has."""
EMPTY_THOUGHT = CHATML_GENERATION.replace("{%- generation %}", "{{- '<think>\n\n</think>\n\n' }}{%- generation %}")
"""Words between the generation prompt and the block."""
DATED = "{{ 'Today is ' + strftime_now('%d %b %Y') + '.\n' }}" + CHATML
WITHOUT_SYSTEM = CHATML.replace(
    "{{ '<|im_start|>' + message['role']", "{% if message.role != 'system' %}{{ '<|im_start|>' + message['role']"
).replace("'<|im_end|>\n' }}{% endfor %}", "'<|im_end|>\n' }}{% endif %}{% endfor %}")

CONTINUED = {
    "chatml": CHATML,
    "chatml with generation": CHATML_GENERATION,
    "llama 2": LLAMA2,
    "smollm 3": SMOLLM3,
    "llava": LLAVA,
    "qwen 3": QWEN3,
    "empty thought": EMPTY_THOUGHT,
    "with a date": DATED,
    "without system": WITHOUT_SYSTEM,
}
"""Name -> template whose conversations continue their prompts."""
