"""The site of the documentation, which ``make docs`` builds. GitHub shows the same documents."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).with_name("_ext")))

project = "kinto-attachment"
author = "The kinto-attachment maintainers"
project_copyright = author
release = version_of("kinto-attachment")
version = ".".join(release.split(".")[:2])

extensions = ["sphinx.ext.autodoc", "document_links", "index_page", "dead_links"]
exclude_patterns = ["_ext"]
# Where GitHub shows the files of the repository that are not pages of the site.
repository_url = "https://github.com/Kinto/kinto-attachment/blob/main/"

html_theme = "sphinx_rtd_theme"
html_theme_options = {"navigation_depth": 2}
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_copy_source = False
html_show_sphinx = False
pygments_style = "sphinx"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"

nitpicky = True
# What other packages document, and the package's own types of Pyramid's objects.
nitpick_ignore_regex = [
    ("py:.*", r"(collections|datetime|enum|os|pathlib|pyramid|pyramid_storage)\..*"),
    # Of ``includeme``, by the name that only type checkers import.
    ("py:.*", r"(kinto_attachment\.kinto_types\..*|Configurator)"),
    ("py:class", r"dict\[str"),  # Of a dataclass whose default is made by a function.
]
# The documentation of other projects is on the network, which a build needs only where it is
# published.
if os.environ.get("READTHEDOCS") == "True":
    extensions.append("sphinx.ext.intersphinx")
intersphinx_mapping = {
    "kinto": ("https://kinto.readthedocs.io/en/latest/", None),
    "pyramid": ("https://docs.pylonsproject.org/projects/pyramid/en/latest/", None),
    "python": ("https://docs.python.org/3/", None),
    "requests": ("https://requests.readthedocs.io/en/latest/", None),
}
