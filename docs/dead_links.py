"""A hook of mkdocs: a link or a picture of the built site that leads nowhere fails the build.

mkdocs itself says little about files that are left out of the site, and nothing about pages that
are generated or about HTML inside of pages.
"""

from __future__ import annotations

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from mkdocs.exceptions import PluginError

MOST = 20
"""Dead links that one message names."""


def on_post_build(config: Any) -> None:
    """Check the site."""
    found = list(dead_links(Path(config["site_dir"])))
    if found:
        more = f"\n… and {len(found) - MOST} more" if len(found) > MOST else ""
        raise PluginError(f"{len(found)} dead links:\n" + "\n".join(found[:MOST]) + more)


def dead_links(site: Path) -> Iterator[str]:
    """``page: target`` for every link into the site that leads nowhere."""
    pages = {path: _read(path) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        if path.name == "404.html":  # its links are absolute, since any path may show it
            continue
        for target in page.targets:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc or target.startswith(("/", "data:")):
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchors = pages[place].anchors if place in pages else None
            lost = anchors is not None and unquote(parts.fragment) not in anchors
            if lost or not place.is_file():
                yield f"{path.relative_to(site).as_posix()}: {target}"


class _Page(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = {"", "__top"}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name == "id" or (tag == "a" and name == "name"):
                self.anchors.add(value or "")
            elif value and ((tag == "a" and name == "href") or name == "src"):
                self.targets.append(value)


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page
