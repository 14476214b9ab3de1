"""Lines of a file from its end, with their places."""

from __future__ import annotations

import pytest

from healthfm_core import row_reading
from healthfm_core.row_reading import lines_backwards, placed_lines_backwards


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("text", [b"", b"a", b"a\n", b"\n", b"a\nbb\n\nccc", b"aaaa\nb\ncc\n"])
def test_each_line_is_where_it_is_said_to_be(tmp_path, monkeypatch, block, text):
    monkeypatch.setattr(row_reading, "BLOCK_BYTES", block)
    path = tmp_path / "rows"
    path.write_bytes(text)
    found = list(placed_lines_backwards(path))
    assert [line for _, line in reversed(found)] == text.split(b"\n")
    assert list(lines_backwards(path)) == [line for _, line in found]
    for at, line in found:
        assert text[at : at + len(line)] == line
        assert at == 0 or text[at - 1 : at] == b"\n"


def test_what_begins_later_is_left_out(tmp_path):
    path = tmp_path / "rows"
    path.write_bytes(b"aaaa\nb\ncc\n")
    assert list(placed_lines_backwards(path, 7)) == [(7, b""), (5, b"b"), (0, b"aaaa")]
    assert list(placed_lines_backwards(path, 10**9))[1] == (7, b"cc")
