"""Pages of the documentation, as tests read them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")])
PLACEHOLDERS = {"CONFIG": "configs/quickstart.py", "mine.py": "configs/quickstart.py"}
"""Config files that pages speak of -> one that is there."""

GENERATED = {"reference/commands.md", "reference/config.md", "development/contributing.md", "development/changelog.md"}
"""Pages that exist on the site only, besides those of the Python API."""


def name(page: Path) -> str:
    """The path of a page from the root of the repository."""
    return str(page.relative_to(ROOT))


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """(command, words) of each complete `merit NAME ...` of a text: in code blocks, and between backticks with a place."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"^(?:[^`\n]*(?:until|--) | *)merit ([a-z]+)((?: [^\n`]*)?)", joined, re.MULTILINE)
    quoted = re.findall(r"`merit ([a-z]+)( [^\n`]*--(?:workdir|root|out)=[^\n`]*)`", joined)
    for command, rest in lines + quoted:
        words = shlex.split(rest.partition("; do ")[0], comments=True)
        if words and words != ["--help"]:
            yield command, [_filled(word) for word in words]


def _filled(word: str) -> str:
    for placeholder, file in PLACEHOLDERS.items():
        word = re.sub(rf"^--config={re.escape(placeholder)}(?=:|$)", f"--config={file}", word)
    return re.sub(r"^--branch=k$", "--branch=0", word)


def files(text: str) -> list[dict[str, str]]:
    """Name -> content of the code blocks with a title, of each section of a page that has any."""
    block = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```', re.DOTALL | re.MULTILINE)
    found = (dict(block.findall(section)) for section in re.split(r"^##+ ", text, flags=re.MULTILINE))
    return [section for section in found if section]


def links(text: str) -> list[str]:
    """Targets of the links of a page that lead to other files, without what is in code blocks."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [target for target in targets if "://" not in target]


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a page, as GitHub and the site make them alike."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
