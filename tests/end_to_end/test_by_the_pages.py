"""A study by its pages alone, in a real browser: from kits in hand to the first round."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from contextlib import ExitStack, contextmanager

import pytest

from healthfm_core.supervision import Supervision
from tests.end_to_end.deployed import REPOSITORY, SITES, Shell, free_ports, make_stores, told
from tests.page.browser import browser

pytestmark = pytest.mark.deployment

CHOSEN = ("north", "south")
SETTINGS = "model=tiny federation.rounds=500 train.max_steps=1 tokens.k_min=20"
COUNTED = re.compile(r"(\d+)\scommands,\s(\d+)\sclicks\sand\s(\d+)\sfields")


class Person:
    """One who has a window, and counts what it takes them.

    Attributes:
        window: The browser's.
        commands: Typed into a terminal.
        clicks: Of the mouse.
        fields: Written into, or a file chosen for.
    """

    def __init__(self, window):
        self.window = window
        self.commands = self.clicks = self.fields = 0

    def follow(self, text):
        self.clicks += 1
        self.window.click_link(text)

    def press(self, css):
        self.clicks += 1
        self.window.click(css)

    def write(self, css, text):
        self.fields += 1
        self.window.write(css, text)


@contextmanager
def page_of(*words):
    """Serve a page with its command, and yield the link that it prints."""
    command = [sys.executable, "-m", *words, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = (line.strip() for line in process.stdout)
            yield next(line for line in lines if "/sign-in#" in line)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    """A study that is up, and sites whose kits have come, as files.

    Yields the folder, the ten words of the study's root, and how many commands it took.
    """
    folder = tmp_path_factory.mktemp("pages")
    port, superlink = free_ports(2)
    values = {"HOST": "127.0.0.1", "PORT": str(port), "SUPERLINK_PORT": str(superlink)}
    shell = Shell(folder, values)
    made = "healthfm-server init study --name heart --host $HOST --port $PORT"
    purpose = "--purpose 'To foresee admissions' --contact 'Dr Meier' --protocol 'EK 2026/114'"
    try:
        root = told(shell.run(f"{made} --superlink-port $SUPERLINK_PORT {purpose}"))
        shell.run("healthfm-server up --study study")
        stores = make_stores(folder / "made", 300)
        for site in SITES:
            (folder / site / "stores").mkdir(parents=True)
            stores[site].rename(folder / site / "stores" / "clinic")
            asked = f"healthfm-client enroll --site {site}/home --study https://$HOST:$PORT"
            values["WORDS"] = told(shell.run(f"{asked} --name {site} --modalities ehr"))
            signed = f"healthfm-server site sign {site}/home/request.zip --study study"
            shell.run(f"{signed} --compared $WORDS --out {site}-kit.zip")
        yield folder, root, len(shell.printed)
    finally:
        for config in folder.glob("**/process/supervisord.conf"):
            Supervision(config.parent, [], {}).stop()


def test_from_kits_in_hand_to_the_first_round(kits):
    folder, root, commands = kits
    homes = {site: folder / site / "home" for site in SITES}
    served = {"study": ("healthfm_server", "page", "--study", str(folder / "study"))}
    for site, home in homes.items():
        served[site] = ("healthfm_client", "page", "--no-browser", "--site", str(home))
    with ExitStack() as open_pages, browser() as window:
        person = Person(window)
        links = {name: open_pages.enter_context(page_of(*words)) for name, words in served.items()}
        person.commands = commands + len(links)
        roots = {name: sign_in(window, link) for name, link in links.items()}
        for site in SITES:
            join(person, roots[site], folder / f"{site}-kit.zip", root)
        order(person, roots["study"])
        for site in CHOSEN:
            approve(person, roots[site])
        window.open(f"{roots['study']}runs/first")
        window.until(lambda: rounds_done(window) >= 1)
        said = (REPOSITORY / "docs" / "site-page.md").read_text("utf-8")
        counted = tuple(map(int, COUNTED.search(said).groups()))
        assert counted == (person.commands, person.clicks, person.fields)

        assert "west" not in window.text("table.matrix tbody")  # nobody chose it


def sign_in(window, link):
    """Open a link, and return where its pages are."""
    window.open(link)
    window.until(lambda: "/s/" in window.run("return location.pathname"))
    return window.run("return location.href")


def join(person, root, kit, words):
    window = person.window
    window.open(root)
    window.until_text("This site has made its request and has no kit yet")
    person.follow("Take the kit in and join")
    window.until(lambda: window.text("h1") == "Join the study")
    person.write("#kit-file", str(kit))
    person.write("#words", words)
    person.press("form:not(.out) button")  # the only store beside the site is chosen already
    window.until_text("This site is connected to the study")


def order(person, root):
    window = person.window
    window.open(root)
    person.follow("New run")
    window.until(lambda: window.text("h1") == "New run")
    person.write("#name", "first")
    for site in CHOSEN:
        person.press(f"input[value={site}]")
    person.write("#settings", "\n".join(SETTINGS.split()))
    person.press("form:not(.out) button")
    window.until(lambda: window.text("h1") == "first")


def approve(person, root):
    window = person.window
    window.open(root)
    window.until_text("Run first of the study heart asks since")
    person.follow("Read what it would do, and answer")
    window.until(lambda: window.text("h1") == "Run first")
    said = window.text()
    for told_of in ("To foresee admissions", "EK 2026/114", "Dr Meier", "clinical records"):
        assert told_of in said
    person.press("button[value=approve]")
    window.until_text("approved", ".headline")


def rounds_done(window):
    found = re.search(r"(\d+) of 500 rounds", window.text())
    return int(found[1]) if found else 0
