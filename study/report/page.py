"""The report's text as one HTML file that needs no network: pictures and style are in it."""

import base64
import re
from itertools import pairwise
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from PIL import Image

from study.report.figures import DPI

_STYLE = Path(__file__).with_name("page.css")
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<main>
{body}</main>
</body>
</html>
"""
_CSS_DPI = 96
"""Pixels that a browser gives an inch."""
_VERDICTS = ("reproduced", "supported", "opposite", "no effect of practical size", "undecided")


def page(markdown: str, folder: Path) -> str:
    """A report's Markdown as HTML.

    Args:
        markdown: of `report.md`.
        folder: where its pictures are; they are embedded.
    """
    engine = MarkdownIt("commonmark", {"html": True}).enable("table")
    tokens = engine.parse(markdown)
    title = next((t.content for t in tokens if t.type == "inline"), "Report").replace("`", "")
    seen: set[str] = set()
    for token, following in pairwise(tokens):
        if token.type == "heading_open":
            token.attrSet("id", _anchor(following.content, seen))
    for token in _every(tokens):
        if token.type == "image":
            picture = folder / str(token.attrGet("src"))
            if picture.with_suffix(".pdf").is_file():
                # A drawing in its own size, so that letters are equally large in all of them.
                token.attrSet("width", str(round(_width(picture) * _CSS_DPI / DPI)))
            token.attrSet("src", _embedded(picture))
            token.attrSet("alt", token.content)
    _name_cells(tokens)
    renderer = engine.renderer
    assert isinstance(renderer, RendererHTML)
    body = renderer.render(tokens, engine.options, {})
    body = body.replace("<table>", '<div class="table"><table>').replace(
        "</table>", "</table></div>"
    )
    for verdict in _VERDICTS:
        mark = f'<span class="verdict {verdict.split()[0]}">{verdict}</span>'
        body = body.replace(f">{verdict}</td>", f">{mark}</td>")
        body = body.replace(f"<p><strong>{verdict}</strong>", f"<p>{mark}")
    return _PAGE.format(title=title, style=_STYLE.read_text(), body=body)


def _every(tokens: list[Token]) -> list[Token]:
    return [each for token in tokens for each in (token, *(token.children or []))]


def _anchor(heading: str, seen: set[str]) -> str:
    """As GitHub names headings: lower case, words joined by dashes, numbered where repeated."""
    name = re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
    number = sum(known == name or known.startswith(f"{name}-") for known in seen)
    name = f"{name}-{number}" if name in seen else name
    seen.add(name)
    return name


def _embedded(picture: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _width(picture: Path) -> int:
    with Image.open(picture) as image:
        return image.width


def _name_cells(tokens: list[Token]) -> None:
    """Give every cell the title of its column, which a narrow screen shows beside it."""
    titles: list[str] = []
    column = 0
    for token, following in pairwise(tokens):
        if token.type == "thead_open":
            titles = []
        elif token.type == "th_open":
            titles.append(following.content)
        elif token.type == "tr_open":
            column = 0
        elif token.type == "td_open":
            token.attrSet("data-title", titles[column])
            column += 1
