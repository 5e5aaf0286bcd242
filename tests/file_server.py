"""A server of files on the loopback address that can be slow, fail, and cut its answers off."""

import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from urllib.parse import unquote


def _handler(root, state):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_):
            pass

        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            name = unquote(self.path).lstrip("/")
            with state.lock:
                state.requests.append(
                    (self.command, name, {k.lower(): v for k, v in self.headers.items()})
                )
                state.in_flight += 1
                state.most_in_flight = max(state.most_in_flight, state.in_flight)
            try:
                time.sleep(state.latency)
                self._answer(name, state.fault(name))
            finally:
                with state.lock:
                    state.in_flight -= 1

        def _answer(self, name, fault):
            if callable(fault):
                fault = fault()
            path = root / name
            if isinstance(fault, int):
                return self._send(fault, b"fault")
            if not path.is_file():
                return self._send(404, b"")
            content, size = path.read_bytes(), path.stat().st_size
            asked = self.headers.get("Range") if state.has_ranges else None
            headers, status = {}, 200
            if asked:
                start, _, stop = asked.removeprefix("bytes=").partition("-")
                first = int(start) if start else max(0, size - int(stop))
                last = min(int(stop), size - 1) if start and stop else size - 1
                content, status = content[first : last + 1], 206
                headers = {"Content-Range": f"bytes {first}-{last}/{size}"}
            return self._send(status, content, headers, cut=fault == "cut")

        def _send(self, status, content, headers=None, cut=False):
            self.send_response(status)
            for key, value in (headers or {}).items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Last-Modified", "Sun, 01 Nov 2026 00:00:00 GMT")
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self.wfile.flush()
                self.close_connection = True

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # of five, others would try again after a second or more

    def handle_error(self, request, client_address):
        """Print no traceback of a client that has gone, as those do that give up waiting."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving(root):
    """Serve a folder.

    Yields
    ------
    SimpleNamespace
        `url`; `requests`, (method, name, headers) of each; `latency` in seconds; `fault`, which
        takes a name and returns a status, "cut", a function of one of these or None;
        `most_in_flight`.
    """
    state = SimpleNamespace(
        requests=[], latency=0.0, fault=lambda name: None, has_ranges=True, in_flight=0,
        most_in_flight=0, lock=threading.Lock(),
    )  # fmt: skip
    server = _Server(("127.0.0.1", 0), _handler(root, state))
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
