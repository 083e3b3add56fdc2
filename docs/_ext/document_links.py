"""Links between documents, which GitHub follows from file to file, become links between pages.

A link to another file of the repository leads to GitHub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging

# The pages that include documents from outside the folder of the documentation.
INCLUDED = {
    "README.rst": "project/readme",
    "CHANGELOG.rst": "project/changelog",
    "CONTRIBUTING.rst": "project/contributing",
    "SECURITY.rst": "project/security",
}

logger = logging.getLogger(__name__)


class DocumentLinks(SphinxPostTransform):
    default_priority = 5

    def run(self, **kwargs: Any) -> None:
        for node in self.document.findall(nodes.reference):
            link = urlsplit(node.get("refuri", ""))
            if link.path and not (link.scheme or link.netloc or node.get("internal")):
                path = repository_path(node, link.path)
                if path is None:
                    logger.warning("no such file: %s", link.path, location=node)
                else:
                    self.resolve(node, path, f"#{link.fragment}" if link.fragment else "")

    def resolve(self, node: nodes.reference, path: Path, fragment: str) -> None:
        page = page_of(self.env, path)
        if page is None:
            node["refuri"] = f"{repository_url(self.env, path)}{fragment}"
            return
        if node.astext() == node["refuri"]:  # A reader of the site does not know of the files.
            node.children = [nodes.Text(self.env.titles[page].astext())]
        uri = self.app.builder.get_relative_uri(self.env.docname, page)
        node["refuri"] = f"{uri}{fragment}"


def repository_path(node: nodes.Node, link: str) -> Path | None:
    """The file that a link leads to, which starts at the file that the link is in."""
    source = next(each.source for each in ancestors(node) if each.source)
    path = (Path(source).parent / link).resolve()
    return path if path.is_file() else None


def ancestors(node: nodes.Node) -> list[Any]:
    found: list[Any] = [node]
    while found[-1].parent is not None:
        found.append(found[-1].parent)
    return found


def page_of(env: BuildEnvironment, path: Path) -> str | None:
    source = Path(env.srcdir).resolve()
    if path.parent == source.parent and path.name in INCLUDED:
        return INCLUDED[path.name]
    name = env.path2doc(str(path)) if path.is_relative_to(source) else None
    return name if name in env.found_docs else None


def repository_url(env: BuildEnvironment, path: Path) -> str:
    root = Path(env.srcdir).resolve().parent
    return f"{env.config.repository_url}{path.relative_to(root).as_posix()}"


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_config_value("repository_url", "", "env")
    app.add_post_transform(DocumentLinks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
