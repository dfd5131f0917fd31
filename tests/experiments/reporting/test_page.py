"""One page that needs nothing else, and says everything."""

from __future__ import annotations

import base64
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from experiments.reporting.page import NOT_OURS, Content, Section, html, markdown_page
from experiments.reporting.published import TABLES

PNG = b"\x89PNG not really"


class Page(HTMLParser):
    """Checks that tags close, and remembers addresses and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def content(tmp_path: Path) -> Content:
    (tmp_path / "accuracy.png").write_bytes(PNG)
    table = pd.DataFrame({"method": ["<b>vidcom2</b>"], "n": ["700"]})
    return Content(
        "A & B",
        ["Runs come from 2 states of the code."],
        [Section("Model micro", "a test bed", table, {"Accuracy.": tmp_path / "accuracy.png"})],
        pd.DataFrame([{"folder": "multirun/3", "settings": "", "status": "failed", "reason": "out of memory"}]),
        pd.DataFrame([{"method": "evs", "error": "undecodable", "samples": 3}]),
        [TABLES["vidcom2_table6"]],
    )


def test_the_page_fetches_nothing(content: Content) -> None:
    text = html(content)
    assert Page(text).addresses == ["data:image/png;base64," + base64.b64encode(PNG).decode()]
    assert "://" not in text
    assert "@import" not in text


def test_the_page_says_everything_and_escapes_it(content: Content) -> None:
    text = html(content)
    for said in ("A &amp; B", "2 states of the code", "a test bed", "&lt;b&gt;vidcom2&lt;/b&gt;", ">700<", "Accuracy."):
        assert said in text
    for said in ("multirun/3", "out of memory", "undecodable", NOT_OURS, "Table 6", "61.9"):
        assert said in Page(text).text


def test_what_is_published_is_marked_and_only_there_if_asked_for(content: Content) -> None:
    without = Content(content.title, [], content.sections, content.unused, content.errors)
    assert html(content).index('class="not-ours"') > html(content).index("vidcom2")
    assert NOT_OURS not in html(without)
    assert "61.9" not in html(without)


def test_markdown_says_the_same(content: Content, tmp_path: Path) -> None:
    text = markdown_page(content, tmp_path)
    for said in (
        "# A & B",
        "* Runs come",
        "## Model micro",
        "| 700 |",
        "(accuracy.png)",
        "out of memory",
        "undecodable",
    ):
        assert said in text
    assert text.index(NOT_OURS) < text.index("61.9")
