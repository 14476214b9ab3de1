"""Colours that people who are red- or green-blind tell apart, with a marker beside each.

Colour vision as Machado, Oliveira and Fernandes simulate it (2009, severity 1); distances are
CIEDE2000.
"""

from __future__ import annotations

import re
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from healthfm_core.evaluation.report import report_page
from healthfm_core.evaluation.report.plots.style import ARM_COLOURS, dashes, markers

CSS = Path(report_page.__file__).parent / "templates" / "style.css"
BLIND = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.01182, 0.04294, 0.968881],
        ]
    ),
}
XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.072175],
        [0.0193339, 0.119192, 0.9503041],
    ]
)


def palettes():
    """Return the light palette and the dark one: name → linear RGB."""
    light, dark = re.findall(r":root \{(.*?)\}", CSS.read_text(), re.DOTALL)
    return [dict(map(_linear, re.findall(r"--(\w+): (#\w{6})", one))) for one in (light, dark)]


def _linear(pair):
    name, code = pair
    value = np.array([int(code[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return name, np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    ratio = XYZ @ np.clip(rgb, 0, 1) / np.array([0.95047, 1.0, 1.08883])
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def difference(one, two):
    """Return CIEDE2000, by Sharma, Wu and Dalal (2005)."""
    (l1, a1, b1), (l2, a2, b2) = one, two
    mean = (np.hypot(a1, b1) + np.hypot(a2, b2)) / 2
    g = 1.5 - 0.5 * np.sqrt(mean**7 / (mean**7 + 25**7))
    a1, a2 = g * a1, g * a2
    c1, c2 = np.hypot(a1, b1), np.hypot(a2, b2)
    h1, h2 = np.degrees(np.arctan2(b1, a1)) % 360, np.degrees(np.arctan2(b2, a2)) % 360
    turn = (h2 - h1 + 180) % 360 - 180 if c1 * c2 else 0.0
    dh = 2 * np.sqrt(c1 * c2) * np.sin(np.radians(turn) / 2)
    lm, cm = (l1 + l2) / 2, (c1 + c2) / 2
    hm = (h1 + turn / 2) % 360 if c1 * c2 else h1 + h2
    t = 1 - 0.17 * np.cos(np.radians(hm - 30)) + 0.24 * np.cos(np.radians(2 * hm))
    t += 0.32 * np.cos(np.radians(3 * hm + 6)) - 0.2 * np.cos(np.radians(4 * hm - 63))
    sl = 1 + 0.015 * (lm - 50) ** 2 / np.sqrt(20 + (lm - 50) ** 2)
    sc, sh = 1 + 0.045 * cm, 1 + 0.015 * cm * t
    rotation = -np.sin(np.radians(60 * np.exp(-(((hm - 275) / 25) ** 2))))
    rotation *= 2 * np.sqrt(cm**7 / (cm**7 + 25**7))
    parts = np.array([(l2 - l1) / sl, (c2 - c1) / sc, dh / sh])
    return float(np.sqrt((parts**2).sum() + rotation * parts[1] * parts[2]))


def test_the_distance_is_the_published_one():
    """The first rows of Sharma's table."""
    assert difference((50, 2.6772, -79.7751), (50, 0, -82.7485)) == pytest.approx(2.0425, abs=1e-4)
    assert difference((50, 2.5, 0), (73, 25, -18)) == pytest.approx(27.1492, abs=1e-4)


@pytest.mark.parametrize("sight", BLIND)
@pytest.mark.parametrize("which", [0, 1], ids=["light", "dark"])
def test_any_two_arms_are_told_apart_by_colour(which, sight):
    found = palettes()[which]
    arms = [lab(BLIND[sight] @ found[f"arm{n}"]) for n in range(len(ARM_COLOURS))]
    assert min(difference(*pair) for pair in combinations(arms, 2)) > 12


@pytest.mark.parametrize("which", [0, 1], ids=["light", "dark"])
def test_every_colour_stands_out_from_the_paper(which):
    found = palettes()[which]
    paper = 0.05 + XYZ[1] @ found["paper"]
    for number in range(len(ARM_COLOURS)):
        ink = 0.05 + XYZ[1] @ found[f"arm{number}"]
        assert max(ink, paper) / min(ink, paper) >= 3, "WCAG 2.2, 1.4.11"


def test_no_two_of_sixteen_arms_have_the_same_marker_and_dashes():
    arms = [f"arm {n}" for n in range(16)]
    signs, lines = markers(arms), dashes(arms)
    assert len({(signs[arm], str(lines[arm])) for arm in arms}) == 16
