"""The lists of pages in the index are the navigation of the site: a caption for each section."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import toctree
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

from document_links import page_of, repository_path, repository_url


class Navigation(SphinxTransform):
    default_priority = 700  # Before Sphinx collects the navigation, at 880.

    def apply(self, **kwargs: Any) -> None:
        if self.env.docname == self.config.root_doc:
            for section in list(self.document.findall(nodes.section)):
                items = section.findall(nodes.list_item)
                entries = [self.entry(item.next_node(nodes.reference)) for item in items]
                if entries and not section.next_node(nodes.section):
                    section += self.tree(section.next_node(nodes.title).astext(), entries)

    def entry(self, link: nodes.reference) -> tuple[str, str]:
        path = repository_path(link, link["refuri"])
        if path is None:  # The transform of links remarks upon it.
            return link.astext(), link["refuri"]
        page = page_of(self.env, path)
        return link.astext(), page or repository_url(self.env, path)

    def tree(self, caption: str, entries: list[tuple[str, str]]) -> toctree:
        pages = [name for _, name in entries if name in self.env.found_docs]
        return toctree(
            parent=self.env.docname,
            caption=caption,
            rawcaption=caption,
            entries=entries,
            includefiles=pages,
            rawentries=[title for title, _ in entries],
            maxdepth=2,
            glob=False,
            hidden=True,
            includehidden=False,
            numbered=0,
            titlesonly=False,
        )


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(Navigation)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
