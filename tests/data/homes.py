"""A home of public data sets on this machine, that can be told to misbehave."""

import contextlib
import hashlib
import http.server
import threading
import time
from collections.abc import Iterator


class Home(http.server.ThreadingHTTPServer):
    """Serves `files`; each of its lists of requests and of faults is there to be looked at."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.files: dict[str, bytes] = {}
        self.breaks_after: int | None = None  # Bytes of an answer, then the connection is cut.
        self.statuses: list[int] = []  # What the next requests are answered with.
        self.piece_pause_s = 0.0  # Between pieces of 1 % each.
        self.versions = True  # Whether files have an ETag, without which nobody can resume.
        self.ranges: list[str | None] = []  # What was asked for.

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class _Answer(http.server.BaseHTTPRequestHandler):
    server: Home

    def do_GET(self):
        home, content = self.server, self.server.files.get(self.path[1:])
        wanted = self.headers.get("Range")
        home.ranges.append(wanted)
        if home.statuses or content is None:
            self.send_error(home.statuses.pop(0) if home.statuses else 404)
            return
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        start = 0
        if wanted and self.headers.get("If-Range") == tag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if home.versions:
            self.send_header("ETag", tag)
        self.end_headers()
        sent = content[start:][: home.breaks_after]
        piece = max(1, len(content) // 100)
        with contextlib.suppress(ConnectionError):
            for i in range(0, len(sent), piece):
                self.wfile.write(sent[i : i + piece])
                time.sleep(home.piece_pause_s)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def open_home() -> Iterator[Home]:
    """A home that is closed at the end."""
    with Home() as home:
        thread = threading.Thread(target=home.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield home
        finally:
            home.shutdown()
            thread.join()
