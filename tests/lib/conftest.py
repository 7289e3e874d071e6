"""What several of these tests use."""

import threading

import pytest
from file_server import WHOLE, Server


@pytest.fixture
def server():
    server = Server(WHOLE)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()
