"""Code shown in the documents runs."""

import re
from pathlib import Path

import pytest

from healthfm_client.ingest import ingest, reader_registry, readers
from healthfm_core.data.store.site_store import SiteStore
from healthfm_core.errors import IngestError

PAGE = Path(__file__).resolve().parents[1] / "docs" / "adding-a-reader.md"


@pytest.fixture
def lab_csv(tmp_path, monkeypatch):
    """The page's reader, as one more module of the package."""
    folder = tmp_path / "modules"
    folder.mkdir()
    shown = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (folder / "lab_csv.py").write_text(shown[0])
    monkeypatch.setattr(readers, "__path__", [*readers.__path__, str(folder)])
    reader_registry.readers.cache_clear()
    yield
    reader_registry.readers.cache_clear()


def export(folder: Path, rows: str) -> Path:
    folder.mkdir()
    (folder / "North.csv").write_text("patient,taken_at,test,result\n" + rows)
    return folder


def test_the_reader_in_the_page_is_found_and_gives_a_sound_store(lab_csv, tmp_path):
    rows = "2,2020-01-02 08:00:00,Na,140\n1,2020-01-01 08:00:00,K,4.5\n"
    (store,) = ingest("auto", export(tmp_path / "raw", rows), tmp_path / "out")
    assert store == tmp_path / "out" / "north"
    site = SiteStore.open(store)
    site.check()
    assert site.events().column("code").to_pylist() == ["LAB//K", "LAB//Na"]
    assert site.events().column("numeric_value").to_pylist() == [4.5, 140.0]


def test_the_reader_in_the_page_refuses_in_one_sentence_and_leaves_nothing(lab_csv, tmp_path):
    raw = export(tmp_path / "raw", "1,2020-01-01 08:00:00,K,high\n")
    with pytest.raises(IngestError, match="HF-303") as caught:
        ingest("lab_csv", raw, tmp_path / "out")
    assert "high" not in str(caught.value)
    assert not (tmp_path / "out").exists()
