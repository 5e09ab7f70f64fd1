"""HTML that cannot forget to escape: a plain string is text, only `Html` is markup."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from html import escape

from edgekd.visible import visible


class Html(str):
    """A string that is markup already."""

    __slots__ = ()


class Section(Html):
    """Markup of a section that knows its heading."""

    heading: str


Node = str | Html | None
"""Text to be escaped, markup, or nothing."""


def join(nodes: Iterable[Node]) -> Html:
    """The nodes one after the other; text is escaped, None left out."""
    return Html("".join(n if isinstance(n, Html) else escape(visible(n)) for n in nodes if n is not None))


def tag(name: str, *children: Node, **attributes: str) -> Html:
    """One element; an attribute's trailing underscore is dropped, so that `class_` can be said."""
    named = ((key.rstrip("_").replace("_", "-"), escape(visible(value))) for key, value in attributes.items())
    given = "".join(f' {key}="{value}"' for key, value in named)
    return Html(f"<{name}{given}>{join(children)}</{name}>")


def section(title: str, lead: str, *body: Node) -> Section | None:
    """A section with a title and a lead sentence, or None where it has no body; see `contents`."""
    parts = [part for part in body if part]
    if not parts:
        return None
    lead_in = tag("p", lead, class_="lead") if lead else None
    made = Section(tag("section", tag("h2", title), lead_in, *parts, id=_anchor(title)))
    made.heading = title
    return made


def contents(sections: Sequence[Section]) -> Html | None:
    """Links to sections, or None where there are too few to look for one."""
    if len(sections) < 4:
        return None
    items = [tag("li", tag("a", part.heading, href=f"#{_anchor(part.heading)}")) for part in sections]
    return tag("nav", tag("ul", *items), class_="contents", aria_label="Contents")


def _anchor(title: str) -> str:
    return re.sub(r"[^a-z]+", "-", title.lower()).strip("-")


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[Node]],
    numeric: Collection[int] = (),
    marked: Collection[int] = (),
) -> Html | None:
    """A table that scrolls by itself where it is too wide, or None without rows.

    Args:
        heads: Column titles.
        rows: Cells; None shows as a dash.
        numeric: Columns set in tabular figures, aligned right.
        marked: Rows set apart.
    """
    if not rows:
        return None
    side = ["num" if i in numeric else "txt" for i in range(len(heads))]
    top = tag("tr", *[tag("th", h, class_=s, scope="col") for h, s in zip(heads, side, strict=True)])
    lines = [
        tag(
            "tr",
            *[tag("td", "–" if c is None else c, class_=s) for c, s in zip(row, side, strict=True)],
            class_="marked" if i in marked else "plain",
        )
        for i, row in enumerate(rows)
    ]
    wide = "scroll few" if len(heads) == 2 and numeric else "scroll many" if len(heads) > 4 else "scroll"
    body = tag("table", tag("thead", top), tag("tbody", *lines))
    named = ", ".join(head for head in heads if head)
    # Whoever has no mouse scrolls with the keyboard, and is told what there is to scroll.
    return tag("div", body, class_=wide, tabindex="0", role="region", aria_label=f"Table: {named}")


def facts(pairs: Iterable[tuple[str, Node]]) -> Html | None:
    """A list of names and values; empty values are left out."""
    shown = [(name, value) for name, value in pairs if value]
    if not shown:
        return None
    return tag("dl", *[tag("div", tag("dt", name), tag("dd", value)) for name, value in shown], class_="facts")


def bullets(items: Sequence[Node]) -> Html | None:
    """An unordered list, or None without items."""
    return tag("ul", *[tag("li", item) for item in items]) if items else None


def fold(title: str, *body: Node) -> Html | None:
    """A part that opens on a click, without a script."""
    parts = [part for part in body if part]
    return tag("details", tag("summary", title), *parts) if parts else None
