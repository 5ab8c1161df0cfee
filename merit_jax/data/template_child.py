"""Renders chat templates in a process of its own, whose memory is limited; `template_trial` runs it as a file.

Reads a template as JSON from every line of stdin, and writes a line of stdout: "ok", also where the template fails, or "memory".
A template that takes too long ends the process.
"""

import json
import signal
import sys
from collections.abc import Mapping
from typing import Any

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

TALK = [
    {"role": "user", "content": "Is it? "},
    {"role": "assistant", "content": "yes, there", "reasoning_content": "so"},
]
LONG = [{**message, "content": 200 * message["content"]} for message in TALK]
PROBES = (TALK[:1], TALK, LONG, [{"role": "system", "content": "Be brief."}, *8 * TALK])
"""Conversations of text."""


def in_parts(messages: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Returns a conversation with its contents as lists of parts."""
    return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]


def environment() -> ImmutableSandboxedEnvironment:
    """Makes an environment like that of transformers."""

    def refuse(message: str) -> None:
        raise ValueError(message)

    def tojson(value: Any, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=False, **options)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    made.filters["tojson"] = tojson
    made.globals |= {"raise_exception": refuse, "strftime_now": lambda text: text}
    return made


def tried(source: str) -> str:
    """Renders the probes by a template, and returns the answer."""
    for options in ({"add_generation_prompt": True}, {"tools": [{"function": {"name": "f"}}]}):
        for probe in (*PROBES, *map(in_parts, PROBES)):
            try:
                environment().from_string(source).render(messages=probe, **options)
            except MemoryError:
                return "memory"
            except Exception:  # what the template says or cannot do is told where a record is rendered
                continue
    return "ok"


def main(limits: Mapping[str, float]) -> None:
    """Answers until stdin ends.

    Args:
        limits: "bytes" by which the process may grow, and "seconds" of the processor for one template.
    """
    import resource  # imported here: Windows has none, and this module can be imported there

    with open("/proc/self/statm", encoding="ascii") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + int(limits["bytes"]),) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, limits["seconds"])
        answer = tried(json.loads(line))
        signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
