"""How Sphinx makes the documentation site: `make docs`; decision 0081.

The source folder is the repository, so that a page's links hold on the site as they do in the
checkout; what is no page (a test, a module) is put beside the site and opened from there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

from healthfm_core.command_line import told_version

ROOT = Path(__file__).resolve().parents[1]

project = "HealthFM"
author = "The HealthFM authors"
project_copyright = "The HealthFM authors; Apache-2.0"
release = told_version("healthfm").split()[-1]
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CODE_OF_CONDUCT.md",
    "docs/*.md",
    "docs/decisions/*.md",
    "simulations/experiments/README.md",
    "simulations/experiments/*/README.md",
    "healthfm_core/kernels/ct_attention/README.md",
]
exclude_patterns = ["**/.*", ".*", "build", "dist", "runs"]
suppress_warnings = ["misc.highlighting_failure"]  # a console block shows what a program printed

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = f"HealthFM {release}"
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"source_view_link": ""}


class RepositoryFolders(SphinxPostTransform):
    """Shows a link to a folder of the checkout, which a site has no page for, as its name."""

    default_priority = 5

    def run(self, **kwargs: Any) -> None:
        """Replace such links in one page, before MyST says that it finds no page for them."""
        here = Path(self.env.doc2path(self.env.docname)).parent
        for link in list(self.document.findall(addnodes.pending_xref)):
            target = str(link.get("reftarget", ""))
            folder = (here / target).resolve()
            if link.get("reftype") == "myst" and folder.is_dir() and folder.is_relative_to(ROOT):
                name = f"{folder.relative_to(ROOT)}/"
                link.replace_self(nodes.literal("", name, reftitle=name))


def begin_at_the_index(app: Sphinx, failure: Exception | None) -> None:
    """Let the site's own folder lead to its first page."""
    if failure is None and app.builder.format == "html":
        (Path(app.outdir) / "index.html").write_text(
            '<!doctype html><meta http-equiv="refresh" content="0; url=docs/index.html">'
            '<title>HealthFM</title><a href="docs/index.html">HealthFM</a>\n',
            "utf-8",
        )


def setup(app: Sphinx) -> dict[str, bool]:
    """Add what is ours to Sphinx."""
    app.connect("build-finished", begin_at_the_index)
    app.add_post_transform(RepositoryFolders)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
