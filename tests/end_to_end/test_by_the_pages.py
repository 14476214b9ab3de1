"""A study by its pages alone, in a real browser: from kits in hand to the first round, and on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest

from healthfm_client.runtime.site_supervision import supervision
from healthfm_client.site.site_home import SiteHome
from healthfm_core.supervision import Supervision
from tests.end_to_end.deployed import REPOSITORY, SITES, Shell, free_ports, make_stores, told
from tests.page.browser import DESK, PHONE, browser

pytestmark = pytest.mark.deployment

CHOSEN = ("north", "south")
ROWS = {"north": "#row-0", "south": "#row-1"}
SHOWN_WITHIN_S = 10.0
STUDY_PAGES = ("", "runs/first", "log", "launch", "runs/first/stop", "sites/west/revoke")
SITE_PAGES = ("", "runs", "left", "left/1", "privacy", "data", "doctor", "pause", "leave", "join")
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
        stores = make_stores(folder / "made")
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


def status(site):
    """Return what ``status --json`` prints."""
    words = [sys.executable, "-m", "healthfm_client", "status", "--json", "--site", str(site)]
    return json.loads(subprocess.run(words, capture_output=True, check=True).stdout)


def test_from_kits_in_hand_to_the_first_round_and_on_to_leaving(kits):
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

        window.until(lambda: all("answered" in window.text(row) for row in ROWS.values()))
        assert "west" not in window.text("table.matrix tbody")  # nobody chose it
        window.open(f"{roots['north']}left")
        window.until_text("changes of the model", "table.log")
        window.until_text("none changed or taken out")
        pictures = folder / "pictures"
        pictures.mkdir()
        for size, dark in ((PHONE, False), (DESK, False), (PHONE, True)):
            look_at_every_page(window, roots, size, dark, pictures)
        kill_and_go_on(person, roots, homes["south"], pictures)
        pause_and_resume(person, roots)
        read_the_report(person, roots, pictures)
        leave(person, roots, homes["north"])
        asked = {url.split("/")[2] for url in window.requested()}
        assert asked == {root.split("/")[2] for root in roots.values()}


def look_at_every_page(window, roots, size, dark, pictures):
    """Let axe-core read every page as it is with real processes, and take its picture."""
    window.look_like(size, dark)
    pages = [("study", path) for path in STUDY_PAGES] + [("north", path) for path in SITE_PAGES]
    for name, path in pages:
        window.open(roots[name] + path)
        window.until(lambda: window.run("return document.readyState") == "complete")
        window.until(lambda: not window.run("return document.querySelector('p[role=status]')"))
        look(window, pictures / f"{size[0]}{' dark' * dark} {name} {path.replace('/', ' ')}.png")


def look(window, picture):
    """Let axe-core read the page that is open, and take its picture."""
    assert window.hard_to_read() == [], picture.stem
    wide = window.run("return document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, picture.stem
    window.screenshot(picture)


def kill_and_go_on(person, roots, home, pictures):
    """Kill a site as a power cut does; who is missing shows, and after a pause it goes on."""
    window = person.window
    window.look_like(DESK)
    window.open(f"{roots['study']}runs/first")
    window.until_text("answered", ROWS["south"])
    killed = kill(home)
    window.until_text("offline", ROWS["south"])
    took_s = time.monotonic() - killed
    (pictures / "seconds.txt").write_text(f"{took_s:.1f}\n", "utf-8")
    assert took_s < SHOWN_WITHIN_S
    assert "south is offline" in window.run("return document.querySelector('#said').textContent")
    window.until_text("asked since", ".waits")
    assert window.text(".waits").split("(")[0].strip().endswith("south")
    for size in (PHONE, DESK):
        window.look_like(size)
        look(window, pictures / f"{size[0]} study killed.png")
    window.open(roots["study"])
    window.until(lambda: "south ! not connected" in " ".join(window.text("#study-sites").split()))
    window.open(f"{roots['study']}runs/first")
    confirm(person, "Pause", "Pause run first?")
    window.until_text("paused", ".headline")
    look(window, pictures / "1280 study paused.png")
    window.open(roots["south"])
    window.until_text("Start", ".actions")
    look(window, pictures / "1280 south killed.png")
    confirm(person, "Start", "Start this site’s processes?")
    window.until_text("This site is connected to the study")
    window.open(f"{roots['study']}runs/first")
    before = rounds_done(window)
    confirm(person, "Resume", "Resume run first?")
    window.until(lambda: rounds_done(window) > before)
    window.until(lambda: [*answers(window)][-1].startswith("answered"))


def kill(home):
    """Kill -9 every process of a site, its supervisor first, and return when."""
    supervised = supervision(SiteHome(home))
    states = supervised.states().values()
    assert len(states) == 2
    assert all(state.startswith("RUNNING") for state in states)
    pids = [int(state.split()[2].rstrip(",")) for state in states]
    for pid in (int((supervised.folder / "supervisord.pid").read_text("utf-8")), *pids):
        os.kill(pid, signal.SIGKILL)
    return time.monotonic()


def answers(window):
    """Return what south did in each round that is shown."""
    cells = f"document.querySelectorAll('{ROWS['south']} td:not(.now) .vh')"
    return window.run(f"return [...{cells}].map(cell => cell.textContent)")


def confirm(person, link, question):
    """Follow a link, and say yes to what it asks."""
    person.follow(link)
    person.window.until(lambda: person.window.text("h1") == question)
    person.press("form:not(.out) button")


def read_the_report(person, roots, pictures):
    window = person.window
    window.open(f"{roots['study']}runs/first")
    person.follow("Report")
    window.until(lambda: "north" in window.text("body") and "south" in window.text("body"))
    assert "/report" in window.run("return location.pathname")
    assert "This run goes on" in window.text("body")
    for size in (PHONE, DESK):
        window.look_like(size)
        look(window, pictures / f"{size[0]} report.png")


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


def pause_and_resume(person, roots):
    window = person.window
    window.open(roots["north"])
    person.follow("Pause")
    window.until(lambda: window.text("h1") == "Pause this site?")
    person.press("form:not(.out) button")
    window.until_text("It is paused")
    window.open(f"{roots['study']}runs/first")
    window.until_text("HF-505")  # the coordinator sees who refuses, and why
    window.open(roots["north"])
    person.follow("Resume")
    window.until(lambda: window.text("h1") == "Resume?")
    person.press("form:not(.out) button")
    window.until(lambda: "It is paused" not in window.text() and window.text("h1") == "north")
    window.open(f"{roots['study']}runs/first")
    before = rounds_done(window)
    window.until(lambda: rounds_done(window) > before)


def leave(person, roots, home):
    window = person.window
    window.open(roots["north"])
    person.follow("Leave the study")
    window.until(lambda: window.text("h1") == "Leave the study?")
    person.press("form:not(.out) button")
    window.until_text("This site has left the study.")
    assert supervision(SiteHome(home)).states() == {}
    assert (status(home)["state"], status(home)["connection"]["state"]) == ("left", "left")
    window.open(roots["study"])
    window.until_text("not connected", "#study-sites")
