"""Hooks of the site's build: adds the generated pages, and fits pages of the repository to the site."""

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)] if str(ROOT) not in sys.path else []

from docs.generate import api, commands, config_keys, mathml  # noqa: E402  (the path comes first)

LINK = re.compile(r"\[([^\]]+)\]\(([^)\s#]+)(#[\w-]+)?\)")


def generated() -> dict[str, str]:
    """Writes all generated pages: path in docs/ -> Markdown."""
    pages = {
        "reference/commands.md": commands.page(),
        "reference/config.md": config_keys.page(),
        "reference/api/index.md": api.public_names(),
        "development/contributing.md": from_root("CONTRIBUTING.md", "development"),
        "development/changelog.md": from_root("CHANGELOG.md", "development"),
    }
    return pages | {f"reference/api/{name}.md": api.package(name) for name in api.PACKAGES}


def from_root(name: str, folder: str) -> str:
    """Reads a page that is in the repository's root, with its links as from a folder of docs/."""

    def moved(match: re.Match[str]) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        if "://" in target:
            return match[0]
        if target in ("CHANGELOG.md", "CONTRIBUTING.md"):
            return f"[{label}]({target.lower()})"
        return f"[{label}](../{target.removeprefix('docs/')}{anchor})" if target.startswith("docs/") else label

    return LINK.sub(moved, (ROOT / name).read_text())


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages to the site's."""
    for path, text in generated().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Makes plain text of links to files that are in the repository and not on the site."""
    folder = Path(page.file.abs_src_path or ROOT / "docs" / page.file.src_uri).parent

    def shown(match: re.Match[str]) -> str:
        target = match[2]
        if "://" in target or target.startswith("mailto:"):
            return match[0]
        outside = not (folder / target).resolve().is_relative_to(ROOT / "docs")
        return match[1] if outside else match[0]

    return LINK.sub(shown, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Renders mathematics."""
    return mathml.render(html)
