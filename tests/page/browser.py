"""A real Chromium, driven by its driver's W3C WebDriver protocol: some calls over HTTP.

Selenium is these calls and a downloader of browsers; its pins do not resolve beside ours.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest

from tests.deploy.serving import PATIENCE_S, free_port

CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
SWITCHES = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--no-proxy-server", "--disable-dev-shm-usage", "--disable-default-apps"),
)
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""The key under which an element's reference stands, by the standard."""
KEYS = {"tab": "\ue004", "enter": "\ue007"}
PHONE, DESK = (390, 844), (1280, 900)


def needs_browser():
    """Skip where there is no Chromium or no driver of it."""
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("chromium and chromedriver are not installed (Debian: chromium-driver)")


def axe_source():
    """Return axe-core's script; `make install` brings the package that has it."""
    found = find_spec("axe_core_python")
    assert found is not None
    assert found.origin is not None
    return (Path(found.origin).parent / "axe.min.js").read_text("utf-8")


class Browser:
    """One window.

    Args:
        driver: Asks the driver, within the session.
    """

    def __init__(self, driver):
        self._driver = driver

    def _call(self, path, **body):
        answer = self._driver.post(path, json=body)
        value = answer.json()["value"]
        assert answer.is_success, value
        return value

    def open(self, url):
        self._call("url", url=url)

    def devtools(self, command, **parameters):
        return self._call("goog/cdp/execute", cmd=command, params=parameters)

    def run(self, script, *arguments):
        """Return what a script of the body of a function returns."""
        return self._call("execute/sync", script=script, args=list(arguments))

    def run_async(self, script):
        """Return what a script gives to its last argument."""
        return self._call("execute/async", script=script, args=[])

    def text(self, css="main"):
        """Return what a person reads of an element."""
        return self.run("return document.querySelector(arguments[0])?.innerText ?? ''", css)

    def click(self, css):
        """Click an element, which has to be there."""
        found = self._call("element", using="css selector", value=css)
        self._call(f"element/{found[ELEMENT]}/click")

    def click_link(self, text):
        """Follow a link by what it says."""
        found = self._call("element", using="link text", value=text)
        self._call(f"element/{found[ELEMENT]}/click")

    def write(self, css, text):
        found = self._call("element", using="css selector", value=css)
        self._call(f"element/{found[ELEMENT]}/value", text=text)

    def press(self, key):
        """Press a key where the keyboard is."""
        down = {"type": "keyDown", "value": KEYS[key]}
        keys = {"type": "key", "id": "keys", "actions": [down, {**down, "type": "keyUp"}]}
        self._call("actions", actions=[keys])

    def look_like(self, size, dark=False):
        """Be a phone or a desk, by day or by night."""
        width, height = size
        self.devtools(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.devtools("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path):
        """Write the whole page as a picture."""
        shot = self.devtools("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def requested(self):
        """Return every address on a network that was asked for since the last time."""
        rows = [
            json.loads(row["message"])["message"]
            for row in self._call("se/log", type="performance")
        ]
        asked = [row for row in rows if row["method"] == "Network.requestWillBeSent"]
        urls = [row["params"]["request"]["url"] for row in asked]
        return [url for url in urls if not url.startswith(("chrome", "data:", "about:"))]

    def hard_to_read(self):
        """Return axe-core's serious and critical violations of the page, by name."""
        self.run(axe_source())
        found = self.run_async(
            "axe.run({resultTypes: ['violations']}).then(r => arguments[0](r.violations))"
        )
        return [one["id"] for one in found if one["impact"] in ("serious", "critical")]

    def complaints(self):
        """Return what the console has of errors, the policy's refusals among them."""
        return [row["message"] for row in self._call("se/log", type="browser")]

    def until(self, condition, patience_s=PATIENCE_S):
        """Return what a condition gives, once it gives something."""
        end = time.monotonic() + patience_s
        while not (found := condition()):
            assert time.monotonic() < end, self.text()
            time.sleep(0.1)
        return found

    def until_text(self, text, css="main", patience_s=PATIENCE_S):
        """Wait until a text is there to read."""
        return self.until(lambda: text in self.text(css), patience_s)


@contextmanager
def browser():
    """Yield a window of a browser with a profile of its own."""
    needs_browser()
    port = free_port()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        driver = subprocess.Popen(
            [DRIVER, f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            with httpx.Client(
                base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE_S
            ) as client:
                yield _session(client, profile, driver)
                ended = client.delete(str(client.base_url).rstrip("/"))
                assert ended.is_success, ended.text
        finally:
            # The browser outlives its driver, and a failed test ends no session.
            os.killpg(driver.pid, signal.SIGKILL)
            driver.wait()


def _session(client, profile, driver):
    options = {"binary": CHROMIUM, "args": [*SWITCHES, f"--user-data-dir={profile}"]}
    wanted = {
        "goog:chromeOptions": options,
        "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
    }
    end = time.monotonic() + PATIENCE_S
    while True:
        try:
            answer = client.post("/session", json={"capabilities": {"alwaysMatch": wanted}})
            break
        except httpx.ConnectError:
            assert driver.poll() is None, "the driver ended"
            assert time.monotonic() < end
            time.sleep(0.05)
    assert answer.is_success, answer.text
    client.base_url = f"{client.base_url}/session/{answer.json()['value']['sessionId']}/"
    return Browser(client)
