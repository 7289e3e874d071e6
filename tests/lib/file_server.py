"""A server of one file on this machine that misbehaves as a test plans it."""

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

WHOLE = bytes(range(256)) * 2000
HALF = len(WHOLE) // 2
SHA256 = hashlib.sha256(WHOLE).hexdigest()
SHA1 = hashlib.sha1(WHOLE).hexdigest()
MD5 = hashlib.md5(WHOLE).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers as `plan` says, one entry to a request, the last one for all that follow."""

    daemon_threads = True

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.plan, self.ranges = content, ["serve"], []
        self.sent_half, self.go_on = threading.Event(), threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/file"

    def handle_error(self, *args):
        """Print nothing when a client goes away in the middle, as some tests want it to."""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        plan = self.server.plan
        self.server.ranges.append(self.headers.get("Range"))
        getattr(self, plan.pop(0) if len(plan) > 1 else plan[0])(self.server.content)

    def head(self, status, length, **headers):
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in {"Content_Type": "application/octet-stream", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def begin(self, content):
        """Send the head of an answer to a range or to a plain request; return what follows."""
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if start >= len(content):
            self.send_error(416)
            return b""
        if start:
            self.head(206, len(content) - start,
                      Content_Range=f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.head(200, len(content))
        return content[start:]

    def serve(self, content):
        self.wfile.write(self.begin(content))

    def ignore_range(self, content):
        self.head(200, len(content))
        self.wfile.write(content)

    def wrong_range(self, content):
        self.head(206, len(content), Content_Range=f"bytes 0-{len(content) - 1}/{len(content)}")
        self.wfile.write(content)

    def truncate(self, content):
        rest = self.begin(content)
        self.wfile.write(rest[:len(rest) // 2])

    def nothing(self, content):
        self.begin(content)

    def corrupt(self, content):
        self.serve(content[:999] + bytes([content[999] ^ 1]) + content[1000:])

    def wait_half_way(self, content):
        rest = self.begin(content)
        self.wfile.write(rest[:len(rest) // 2])
        self.wfile.flush()
        self.server.sent_half.set()
        self.server.go_on.wait(60)
        self.wfile.write(rest[len(rest) // 2:])

    def wait_for_nothing(self, content):
        self.server.go_on.wait(60)

    def page(self, content):
        body = b"<html>Please log in</html>"
        self.head(200, len(body), Content_Type="text/html; charset=utf-8")
        self.wfile.write(body)

    def missing(self, content):
        self.send_error(404)

    def no_length(self, content):
        self.head(200, None)
        self.wfile.write(content)

    def endless(self, content):
        self.head(200, None)
        for _ in range(50):
            self.wfile.write(content)

    def log_message(self, *args):
        pass
