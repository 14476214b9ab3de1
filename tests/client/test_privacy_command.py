"""``healthfm-client privacy``: what was spent, what is left, and that the ledger is whole."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET

import pytest
import yaml

from healthfm_client.__main__ import main
from healthfm_core.privacy.accounting import Mechanism, epsilon
from healthfm_core.privacy.ledger import Ledger, PrivacyLimits

ROUND = Mechanism(4.0, 0.1, 20)
FREE = PrivacyLimits(1e-5)


@pytest.fixture
def site(tmp_path):
    """Two studies with noise, the second cut off in its second round, and one without."""
    rules = {"mode": "dp", "epsilon": 8.0, "epsilon_max": 10.0, "ledger": "ledger.jsonl"}
    (tmp_path / "site.yaml").write_text(yaml.safe_dump({"privacy": rules}))
    book = Ledger(tmp_path / "ledger.jsonl", clock=lambda: 1.8e9)
    for run, name in (("1f", "sepsis <2027>"), ("2e", "heart failure")):
        for round_ in (1, 2):
            number = book.reserve(run, name, round_, ROUND, FREE)
            if (run, round_) != ("2e", 2):
                book.spend(number, 15)
                book.commit(number)
    book.note_unprotected("3d", "pilot")
    return tmp_path


def test_the_table_has_every_study_and_what_is_left(site, capsys):
    assert main(["privacy", str(site / "site.yaml")]) == 0
    told = capsys.readouterr().out
    first, whole = Mechanism(4.0, 0.1, 30), Mechanism(4.0, 0.1, 65)
    assert re.search(rf"sepsis <2027> .* 2 +30 +{epsilon([first], 1e-5):.2f}\n", told)
    assert re.search(r"pilot .* 0 +0 +no noise\n", told)
    spent = epsilon([whole], 1e-5)
    assert f"All together: ε {spent:.2f} of 10; {10 - spent:.2f} is left (δ 1e-05)." in told
    assert "1 trained without noise" in told
    assert "1 rounds were begun and never closed" in told
    last = json.loads((site / "ledger.jsonl").read_text().splitlines()[-1])["hash"]
    assert f"11 lines verified. Keep the last hash elsewhere:\n{last}" in told


def test_json_says_the_same(site, capsys):
    assert main(["privacy", str(site / "site.yaml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["epsilon"] == epsilon([Mechanism(4.0, 0.1, 65)], 1e-5)
    assert [study["name"] for study in found["studies"]] == [
        "sepsis <2027>",
        "heart failure",
        "pilot",
    ]
    assert found["unprotected"] == 1


def test_the_page_needs_nothing_else_and_its_plot_is_sound(site):
    assert main(["privacy", str(site / "site.yaml"), "--html", str(site / "page.html")]) == 0
    text = (site / "page.html").read_text()
    assert "sepsis &lt;2027&gt;" in text
    assert not re.search(r"(src|href)=|https?://", text)
    plot = ET.fromstring(re.search(r"<svg.*</svg>", text, re.DOTALL)[0])
    heights = [
        float(y) for y in re.findall(r"V([\d.]+)", plot.find("path[@class='spent']").get("d"))
    ]
    assert len(heights) == 3
    limit = float(re.match(r"M\d+,([\d.]+)", plot.find("path[@class='limit']").get("d"))[1])
    assert heights[0] > heights[1] == heights[2] > limit


def test_a_tampered_ledger_and_no_ledger_are_one_sentence_each(site, tmp_path, capsys):
    text = (site / "ledger.jsonl").read_text()
    (site / "ledger.jsonl").write_text(text.replace('"steps": 15', '"steps": 1', 1))
    assert main(["privacy", str(site / "site.yaml")]) == 7
    assert "HF-602" in capsys.readouterr().err
    (tmp_path / "other.yaml").write_text("{}")
    assert main(["privacy", str(tmp_path / "other.yaml")]) == 2
    assert "HF-103" in capsys.readouterr().err
