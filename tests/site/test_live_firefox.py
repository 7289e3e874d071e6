"""A chapter runs in Firefox, too: driven by Marionette, the protocol that Firefox itself speaks."""

import json
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager

import pytest
from conftest import needs_python

FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
pytestmark = [
    pytest.mark.site,
    pytest.mark.slow,
    pytest.mark.skipif(not FIREFOX, reason="no Firefox found: pages were run in Chromium alone"),
    needs_python,
]
LIMIT = 300  # seconds: many times what a quiet machine needs
# Every host but this machine is behind a proxy that is not there.
PREFERENCES = {
    "marionette.port": 0,
    "network.proxy.type": 1,
    "network.proxy.http": "127.0.0.1",
    "network.proxy.http_port": 9,
    "network.proxy.ssl": "127.0.0.1",
    "network.proxy.ssl_port": 9,
    "network.proxy.no_proxies_on": "127.0.0.1",
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
}
START = """const [done] = arguments;
  window.faults = [];
  addEventListener('error', event => faults.push(event.message));
  document.querySelector('.live-start').click();
  const timer = setInterval(() => {
    const said = document.querySelector('.live-state')?.textContent ?? '';
    if (!/cells done|stopped|lost/.test(said)) return;
    clearInterval(timer);
    const cells = [...document.querySelectorAll('[data-live]')].map(it => it.dataset.live);
    done({said, cells, faults, text: document.querySelector('article').innerText,
      hosts: performance.getEntriesByType('resource').map(it => new URL(it.name).host)});
  }, 200);"""


class Marionette:
    """A connection that sends [0, number, command, parameters] and hears [1, number, error, value].
    """

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=LIMIT)
        self.file, self.count = self.socket.makefile("rb"), 0
        self.read()  # who it is

    def read(self):
        length = b""
        while (byte := self.file.read(1)) != b":":
            if not byte:
                raise ConnectionError("Firefox has ended")
            length += byte
        return json.loads(self.file.read(int(length)))

    def __call__(self, command, **parameters):
        self.count += 1
        message = json.dumps([0, self.count, f"WebDriver:{command}", parameters]).encode()
        self.socket.sendall(b"%d:%s" % (len(message), message))
        _, _, error, value = self.read()
        assert error is None, f"{command}: {error}"
        return value


@contextmanager
def firefox(profile):
    """A headless Firefox with a new profile; gives its connection."""
    lines = [f'user_pref("{name}", {json.dumps(value)});' for name, value in PREFERENCES.items()]
    (profile / "user.js").write_text("\n".join(lines))
    command = [FIREFOX, "--headless", "--marionette", "--no-remote", "--profile", str(profile)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = profile / "MarionetteActivePort"
        end = time.monotonic() + 60
        while not (port.is_file() and port.read_text()):
            assert process.poll() is None and time.monotonic() < end, "Firefox does not start"
            time.sleep(0.1)
        send = Marionette(int(port.read_text()))
        send("NewSession", capabilities={})
        send("SetTimeouts", script=1000 * LIMIT, pageLoad=1000 * LIMIT)
        yield send
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.timeout(2 * LIMIT)
def test_a_chapter_runs_in_firefox(site, tmp_path):
    with firefox(tmp_path) as send:
        send("Navigate", url=f"{site}book/02_lenet5.html")
        found = send("ExecuteAsyncScript", script=START, args=[])["value"]
    assert "cells done" in found["said"]
    assert found["cells"].count("error") == 1  # the one broken on purpose
    assert found["cells"].count("ok") == len(found["cells"]) - 1 > 20
    assert "images (100, 1, 28, 28) float32" in found["text"]
    assert found["faults"] == []
    assert set(found["hosts"]) == {site.split("/")[2]}
