"""The documentation site builds without a warning, and needs nothing from elsewhere."""

from __future__ import annotations

import io
import json
import re
import warnings
from pathlib import Path

import pytest
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace, patch_docutils

from tests import commands_page, settings_page

ROOT = Path(__file__).resolve().parents[2]
MADE = {"settings.md": settings_page, "commands.md": commands_page}


def build(source: Path, out: Path, builder: str = "html", **settings: object) -> str:
    """Build a site by docs/conf.py and return what was warned of."""
    said = io.StringIO()
    with warnings.catch_warnings(), patch_docutils(), docutils_namespace():
        warnings.simplefilter("ignore")  # Python's own, of Sphinx's dependencies
        app = Sphinx(
            *(source, ROOT / "docs", out / "site", out / "trees", builder),
            confoverrides=settings,
            status=None,
            warning=said,
        )
        app.build(force_all=True)
    return said.getvalue()


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The whole site, built as `make docs` builds it."""
    out = tmp_path_factory.mktemp("documentation")
    assert build(ROOT, out) == ""
    return out / "site"


def test_every_page_for_a_kind_of_user_is_there(site):
    for name in ("index", "for-a-site", "for-a-coordinator", "for-a-researcher", "comparison"):
        assert (site / "docs" / f"{name}.html").is_file()
    assert "url=docs/index.html" in (site / "index.html").read_text("utf-8")


def test_the_reference_is_made_of_the_docstrings(site):
    page = (site / "docs" / "python.html").read_text("utf-8")
    for name in ("trained.TrainedModel.risks", "data.store.site_store.SiteStore.open"):
        assert f'id="healthfm_core.{name}"' in page


def test_no_page_loads_anything_from_elsewhere(site):
    loads = re.compile(
        r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["'](?:https?:)?//"""
        r"""|<link\b(?=[^>]*\brel=["'](?:stylesheet|preload|icon))[^>]*href=["'](?:https?:)?//"""
        r"""|@import\s+url\(["']?(?:https?:)?//"""
    )
    files = [*site.rglob("*.html"), *site.rglob("*.css")]
    assert len(files) > 100
    assert [f.name for f in files if loads.search(f.read_text("utf-8"))] == []


def test_search_works_from_a_folder(site):
    """The index is a script, which a browser loads from a file too; JSON it would not fetch."""
    text = (site / "searchindex.js").read_text("utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))
    found = {index["docnames"][place] for place in index["terms"]["quadlet"]}
    assert "docs/install" in found
    assert 'src="../searchindex.js"' in (site / "docs" / "install.html").read_text("utf-8") or (
        'src="searchindex.js"' in (site / "search.html").read_text("utf-8")
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a](nowhere.md)", "target not found: 'nowhere.md'"),
        ("[a](#nowhere)", "target not found: 'nowhere'"),
        ("[a](other.md#nowhere)", "local id not found"),
        ("[a](../nofolder)", "target not found: '../nofolder'"),
    ],
)
def test_a_link_that_leads_nowhere_is_a_warning(text, says, tmp_path):
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "other.md").write_text("# Other\n")
    (pages / "index.md").write_text(f"# One\n\n{text}\n\n```{{toctree}}\nother\n```\n")
    told = build(pages, tmp_path, "dummy", root_doc="index", include_patterns=["*.md"])
    assert says in told
    assert told.count("WARNING") == 1


@pytest.mark.parametrize("name", MADE)
def test_a_made_page_is_what_its_source_says(name):
    page = (ROOT / "docs" / name).read_text("utf-8")
    module = MADE[name]
    assert page == module.page(), f"python -m {module.__name__} > docs/{name}"
