"""The site is whole: every page is in the navigation, every link leads somewhere, every name that a page gives exists."""

import importlib
import re
import subprocess

import pytest
import yaml

from docs.generate import api
from tests.support import pages

API = {f"reference/api/{name}.md" for name in ("index", *api.PACKAGES)}


def nav(entry):
    """Paths of all pages in a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    return [page for value in (entry.values() if isinstance(entry, dict) else entry) for page in nav(value)]


def settings():
    return yaml.safe_load((pages.ROOT / "mkdocs.yml").read_text())


def test_the_navigation_has_every_page_once():
    listed = nav(settings()["nav"])
    written = {str(page.relative_to(pages.DOCS)) for page in pages.DOCS.rglob("*.md")}
    assert len(listed) == len(set(listed))
    assert set(listed) == written | pages.GENERATED | API


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_links_lead_somewhere(page):
    for link in pages.links(page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        relative = str(target.relative_to(pages.DOCS)) if target.is_relative_to(pages.DOCS) else ""
        if relative in pages.GENERATED | API:
            continue
        assert target.exists(), link
        assert not anchor or anchor in pages.anchors(target.read_text()), link


def test_every_page_is_reached_from_another():
    reached = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in pages.PAGES
        for link in pages.links(page.read_text())
    }
    orphans = {pages.name(page) for page in pages.DOCS.rglob("*.md")} - {pages.name(p) for p in reached if p.exists()}
    assert orphans <= {"docs/index.md"}


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_modules_and_files_that_a_page_names_exist(page):
    if page.name == "CHANGELOG.md":
        return  # it names what has been
    text = page.read_text()
    for name in re.findall(r"`((?:merit_jax|models|configs|launch|benchmarks|tests)(?:\.[a-z_0-9]+)+)", text):
        assert resolves(name), name
    for path in re.findall(r"`((?:merit_jax|models|configs|launch|benchmarks|tests|examples|docs)/[\w/.]*)`", text):
        assert (pages.ROOT / path).exists(), path


def resolves(name):
    """Whether a dotted name is a module or something in one."""
    if name.endswith((".py", ".txt", ".json")):
        return True
    for length in range(name.count(".") + 1, 0, -1):
        parts = name.split(".")
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def test_the_site_loads_nothing_from_elsewhere():
    config = settings()
    assert config["strict"] is True
    assert config["theme"]["font"] is False
    assert not [url for key in ("extra_css", "extra_javascript") for url in config.get(key, []) if "://" in url]
    assert not [page for page in pages.PAGES if re.search(r"!\[[^\]]*\]\(https?:|<script", page.read_text())]


def test_every_package_has_its_tests_where_test_fast_looks():
    for package in (*(f"merit_jax/{name}" for name in api.PACKAGES), "models", "launch", "configs"):
        words = ["make", "--no-print-directory", "--dry-run", "test-fast", f"PACKAGE={package}"]
        command = subprocess.run(words, cwd=pages.ROOT, capture_output=True, text=True, check=True).stdout
        folder = command.split()[-1]
        assert folder == f"tests/{package.removeprefix('merit_jax/')}"
        assert (pages.ROOT / folder).is_dir()
