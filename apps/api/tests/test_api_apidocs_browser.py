"""The page of the description in a real browser: fill in, send, read the reply; nothing is asked elsewhere."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from websockets.sync.client import ClientConnection, connect

from api.openapi.schemas import REPORT_ID, UID, URL

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on this machine: apt-get install chromium")

LIST = "#operations-measurements-get_api_v1_measurements"


@contextmanager
def chromium(directory: Path) -> Iterator["Browser"]:
    """Run a headless Chromium with a profile of its own."""
    assert PROGRAM is not None
    command = [PROGRAM, "--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    command += ["--no-sandbox"]  # tests may run as root
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += ["--remote-debugging-port=0", f"--user-data-dir={directory}/profile", "about:blank"]
    log = directory / "chromium.log"
    with log.open("wb") as output, subprocess.Popen(command, stdout=output, stderr=output, cwd=directory) as process:
        try:
            with connect(debugging_address(process, directory), max_size=None, compression=None) as socket:
                yield Browser(socket)
        except OSError as error:
            error.add_note(log.read_text(errors="replace"))
            raise
        finally:
            process.terminate()


def debugging_address(process: "subprocess.Popen[bytes]", directory: Path) -> str:
    """Return the address of the first page, once the browser is up."""
    path = directory / "profile" / "DevToolsActivePort"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and "\n" in path.read_text():
            port = int(path.read_text().split()[0])
            targets = httpx.get(f"http://127.0.0.1:{port}/json/list", timeout=30).json()
            return str(next(target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page"))
        time.sleep(0.05)
    raise OSError("Chromium did not come up")


class Browser:
    """One page, driven over the debugging protocol; keeps the events that the browser sends."""

    def __init__(self, socket: ClientConnection) -> None:
        self.events: list[dict[str, Any]] = []
        self._socket = socket
        self._count = 0
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        self._count += 1
        self._socket.send(json.dumps({"id": self._count, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=60))
            if message.get("id") == self._count:
                assert "error" not in message, message
                return message["result"]
            self.events.append(message)

    def run(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript in the page."""
        reply = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in reply, reply
        return reply["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Return the value of an expression as soon as it is true."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if value := self.run(expression):
                return value
            time.sleep(0.05)
        raise AssertionError(f"never true: {expression}")

    def open(self, url: str) -> None:
        self.events.clear()
        self.call("Page.navigate", url=url)

    def asked(self) -> list[str]:
        """Return every address that was asked for since the page was opened, but those inside the page itself."""
        urls = [
            each["params"]["request"]["url"] for each in self.events if each["method"] == "Network.requestWillBeSent"
        ]
        return [url for url in urls if not url.startswith("data:")]

    def complaints(self) -> list[str]:
        """Return what the browser reported: refusals by the policy, failed requests, exceptions, warnings."""
        named = {"Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"}
        return [json.dumps(each["params"]) for each in self.events if each["method"] in named]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def filled(api: Any) -> Any:
    with psycopg.connect(api.dsn) as connection:
        connection.execute(
            """INSERT INTO fastpath (measurement_uid, report_id, input, domain, probe_cc, probe_asn, test_name,
                   measurement_start_time, test_start_time, anomaly, confirmed, msm_failure, scores)
               VALUES (%s, %s, %s, 'www.example.org', 'IE', 34245, 'web_connectivity',
                   '2024-01-01 00:01:00', '2024-01-01 00:00:00', false, false, false, '{}')""",
            [UID, REPORT_ID, URL],
        )
    return api


def test_fill_in_send_and_read(browser: Browser, filled: Any) -> None:
    browser.open(f"{filled.url}/apidocs/?url=https://evil.example/x.json&configUrl=https://evil.example/x.json")
    browser.wait("document.querySelectorAll('.opblock').length > 30")
    assert browser.run("document.getElementById('reference').hidden")
    browser.run(f"document.querySelector('{LIST} .opblock-summary-control').click()")
    field = f"document.querySelector('{LIST} [data-param-name=limit] input')"
    assert browser.wait(f"{field}?.value") == "10", "the sample request is filled in"
    assert browser.run(f"document.querySelector('{LIST} [data-param-name=report_id] input').value") == ""
    browser.run(f"{field}.focus()")
    browser.run(f"{field}.select()")
    browser.call("Input.insertText", text="7")
    browser.run(f"{field}.blur()")
    browser.run(f"document.querySelector('{LIST} .execute').click()")
    browser.wait(f"document.querySelector('{LIST} .live-responses-table') !== null")
    shown = browser.run(f"document.querySelector('{LIST} .live-responses-table').innerText")
    assert "200" in shown
    assert UID in shown
    assert "cache-control: max-age=60" in shown
    curl = browser.run(f"document.querySelector('{LIST} .curl-command').innerText")
    assert f"'{filled.url}/api/v1/measurements?probe_cc=IE" in curl
    assert "limit=7" in curl
    assert any("limit=7" in url for url in browser.asked())
    assert all(url.startswith(f"{filled.url}/") for url in browser.asked()), browser.asked()
    assert browser.complaints() == []


def test_what_would_be_published_cannot_be_sent(browser: Browser, filled: Any) -> None:
    browser.open(f"{filled.url}/apidocs/")
    block = browser.wait("document.querySelector('[id^=operations-submissions-post_report__rid]')?.id")
    browser.run(f"document.querySelector('#{block} .opblock-summary-control').click()")
    browser.wait(f"document.querySelector('#{block} .responses-table') !== null")
    assert browser.run(f"document.querySelector('#{block} .execute')") is None


def test_the_policy_refuses_other_hosts(browser: Browser, filled: Any) -> None:
    """The other side of the first test: had the page asked elsewhere, it would have been refused and seen here."""
    browser.open(f"{filled.url}/apidocs/")
    browser.wait("document.querySelectorAll('.opblock').length > 30")
    assert browser.run("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
    browser.run("document.body.append(Object.assign(document.createElement('script'), {text: 'window.ran = true'}))")
    assert browser.run("window.ran") is None
    assert any("Content Security Policy" in each for each in browser.complaints())


def test_the_page_without_scripts(browser: Browser, filled: Any) -> None:
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(f"{filled.url}/apidocs/")
        deadline = time.monotonic() + 60
        while not any(each["method"] == "Page.loadEventFired" for each in browser.events):
            assert time.monotonic() < deadline
            browser.call("Page.getLayoutMetrics")
        root = browser.call("DOM.getDocument")["root"]["nodeId"]
        shown = browser.call("DOM.getOuterHTML", nodeId=root)["outerHTML"]
        assert "GET /api/v1/measurements" in shown
        assert "hidden" not in shown.partition('<main id="reference"')[2].partition(">")[0]
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
