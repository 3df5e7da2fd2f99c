"""A web server on this machine that can misbehave as the real ones do, and what it serves."""

import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

import pytest

from .toys import ARCHIVE, CONTENT, source_of

Fault = Literal["", "cut", "no ranges", "wrong range", "416", "page", "bare page", "slow", "hang", "gzip", "no length"]


@dataclass
class Site:
    """What is served under each path, how badly, and what was asked for: (path, Range header or "")."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, Fault] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    agents: set[str] = field(default_factory=set)
    cut_after: int = 100_000
    over: threading.Event = field(default_factory=threading.Event)


LOGIN = b"<p>Please log in to the campus network"
PAGE = b"\n<!DOCTYPE html><html><body>%b</body></html>" % LOGIN


def _handler(site: Site) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            path, asked = self.path.lstrip("/"), self.headers.get("Range", "")
            site.asked.append((path, asked))
            site.agents.add(self.headers["User-Agent"])
            fault = site.faults.get(path, "")
            if path not in site.files:
                return self.answer(404, b"nothing here")
            content = site.files[path]
            if fault == "page":
                return self.answer(200, LOGIN, "text/html; charset=utf-8")
            if fault == "bare page":
                return self.answer(200, PAGE, "")
            if fault == "416" and asked:
                return self.answer(416, b"")
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and fault != "no ranges" else 0
            said = start + 1 if fault == "wrong range" else start
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {said}-{len(content) - 1}/{len(content)}")
            if fault == "gzip":
                self.send_header("Content-Encoding", "x-gzip")
            if fault != "no length":
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = start + site.cut_after if fault in ("cut", "hang", "no length") else len(content)
            if fault == "slow":
                for at in range(start, end, 65_536):
                    self.wfile.write(content[at : at + 65_536])
                    time.sleep(0.02)
            else:
                self.wfile.write(content[start:end])
            if fault == "hang":
                site.over.wait()

        def answer(self, status: int, body: bytes, kind: str = "text/plain") -> None:
            self.send_response(status)
            if kind:
                self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


@pytest.fixture
def site(monkeypatch):
    """Serve `site.files`, and keep what this machine has of proxies and mirrors out of it."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "NEUROPRIOR_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    site = Site()

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that leaves early is what some tests are about

    with Server(("127.0.0.1", 0), _handler(site)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        site.url = f"http://127.0.0.1:{server.server_port}"
        yield site
        site.over.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def toy(site):
    """One plain file, on one address."""
    site.files["a.pth"] = CONTENT
    return source_of(f"{site.url}/a.pth")


@pytest.fixture
def photos(site):
    """One archive, on one address."""
    site.files["photos.tar.gz"] = ARCHIVE
    return source_of(f"{site.url}/photos.tar.gz", path="photos.tar.gz", content=ARCHIVE, unpacks_to="photos")
