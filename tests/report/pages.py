"""A page as the standard library's parser reads it. Not a test."""

import re
from html.parser import HTMLParser
from pathlib import Path

from jaxtickets.report import html

VOID = {"meta", "link", "img", "br", "hr"}


class Page(HTMLParser):
    """Tags, texts and table rows of a page, read by the standard library's parser; every tag must be closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.rows, self.headings, self.addresses, self.alts = (
            [],
            [],
            [],
            [],
            [],
            [],
        )
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.addresses += [
            value
            for name, value in attrs
            if name in ("href", "src", "action", "srcset", "data", "poster")
        ]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag == "img":
            self.alts.append(dict(attrs)["alt"])
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words += data
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    def row(self, name, number=0):
        return [row for row in self.rows if row[0] == name][number]


def page_of(*paths, published=(), title="Report", **how):
    return Page(
        html.render(
            title,
            "about",
            html.sections(html.read_inputs([Path(path) for path in paths]), published, **how),
        )
    )
