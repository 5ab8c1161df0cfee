"""`merit report --open` opens the page that it has written, and says what to do where it cannot."""

import webbrowser

import pytest
from etils import epath

from merit_jax.launch import report


def test_the_page_is_opened_by_its_address(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    page = epath.Path(tmp_path / "a run" / "report.html")
    assert report.open_page(page) == ""
    assert opened == [(tmp_path / "a run/report.html").resolve().as_uri()]
    assert "%20" in opened[0]


def raises(address):
    raise webbrowser.Error("no display")


@pytest.mark.parametrize("open_page", [lambda address: False, raises])
def test_without_a_browser_it_says_where_the_page_is(tmp_path, monkeypatch, open_page):
    monkeypatch.setattr(webbrowser, "open", open_page)
    said = report.open_page(epath.Path(tmp_path / "report.html"))
    assert (
        said
        == f"--open: this machine has no browser that can be opened; open {tmp_path}/report.html where there is one"
    )


def test_a_page_in_a_bucket_is_not_opened(monkeypatch):
    monkeypatch.setattr(webbrowser, "open", lambda address: pytest.fail("opened"))
    assert "the page is in a bucket; copy gs://b/report.html" in report.open_page(epath.Path("gs://b/report.html"))


@pytest.mark.parametrize("wanted", [True, False])
def test_the_command_opens_the_page_where_it_is_asked_to(tmp_path, monkeypatch, wanted):
    opened = []
    flags = type("Flags", (), {"workdir": str(tmp_path), "open": wanted})
    monkeypatch.setattr(report, "FLAGS", flags)
    monkeypatch.setattr(report, "write_report", lambda workdir, folder: workdir.report)
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    report.main([])
    assert opened == [(tmp_path / "report.html").as_uri()] * wanted
