import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from study.report.page import page

VOID = {"meta", "link", "img", "br", "hr"}


class Reader(HTMLParser):
    """Checks that tags close; keeps identifiers, links and what would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.names: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.names += [values["id"] or ""] if "id" in values else []
        if tag == "a":
            self.links.append(values["href"] or "")
        elif address := values.get("src") or values.get("href"):
            self.fetched.append(address)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


@pytest.fixture(scope="module")
def html(written: Path) -> str:
    return (written / "report.html").read_text()


def test_the_page_is_whole_and_fetches_nothing(html: str):
    reader = Reader(html)
    assert reader.fetched
    assert [address for address in reader.fetched if not address.startswith("data:")] == []
    assert "url(" not in html
    assert "@import" not in html
    assert "<script" not in html


def test_links_within_the_page_lead_somewhere(html: str):
    reader = Reader(html)
    inner = {link[1:] for link in reader.links if link.startswith("#")}
    assert inner
    assert inner <= set(reader.names)
    assert len(set(reader.names)) == len(reader.names)


def test_links_to_files_exist_beside_the_page(html: str, written: Path):
    outer = {link for link in Reader(html).links if not link.startswith(("#", "../", "http"))}
    assert outer
    assert {link for link in outer if not (written / link).is_file()} == set()


def test_the_page_says_what_the_text_says(html: str, written: Path):
    words = (written / "report.md").read_text()
    for heading in re.findall(r"^#+ (.+)$", words, re.MULTILINE):
        assert heading.replace("`", "") in re.sub(r"</?code>", "", html).replace("&amp;", "&")
    for value in re.findall(r"[+−]\d+\.\d %", words):
        assert value in html


def test_notes_are_in_the_text_and_the_page(html: str, written: Path):
    assert "## Notes\n\nWritten by *hand*." in (written / "report.md").read_text()
    assert "Written by <em>hand</em>." in html


def test_the_first_screen_has_verdicts_and_the_headline_figure(html: str):
    first = html.partition("<h2")[0]
    assert '<span class="verdict' in first
    assert first.count("<img") == 1
    assert 'data-title="Verdict"' in first


def test_every_claim_that_ran_has_a_section_with_figure_cost_and_sources(written: Path):
    text = (written / "report.md").read_text()
    sections = re.split(r"^### Claim ", text, flags=re.MULTILINE)[1:]
    assert {section.partition(":")[0] for section in sections} >= {"1", "2", "3", "6", "14", "16"}
    for section in sections:
        number = int(section.partition(":")[0])
        for kind in ("png", "pdf", "csv"):
            assert (written / f"figures/claims/claim_{number:02d}.{kind}").is_file()
        assert f"figures/claims/claim_{number:02d}.png" in section
        assert "min of wall clock" in section
        assert "commit `0123456789ab`" in section
        assert "[Protocol](#protocol)" in section


def test_headings_of_equal_words_have_names_of_their_own(tmp_path: Path):
    names = Reader(page("# A\n\n## B\n\n## B\n\n## B c\n", tmp_path)).names
    assert names == ["a", "b", "b-1", "b-c"]


def test_a_cell_knows_its_column(tmp_path: Path):
    found: Any = page("# A\n\n| X | Y |\n|---|---|\n| 1 | 2 |\n", tmp_path)
    assert '<td data-title="X">1</td>' in found
    assert '<td data-title="Y">2</td>' in found
