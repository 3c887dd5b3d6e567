"""A Hugging Face Hub and a record of published files on this machine."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"


class Shelf(BaseHTTPRequestHandler):
    """Answers as the Hub and Zenodo do, from dicts of the server."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self, code, content=b"", **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _json(self, content, code=200):
        self._answer(code, json.dumps(content).encode(), Content_Type="application/json")

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        hold, path = self.server.files, self.path.split("?")[0]
        self.server.asked.append((path, self.headers.get("Range")))
        if path == "/record":
            self._json(self.server.record)
        elif path.startswith("/api/models/org/crystals/tree/"):
            self._json(
                [{"type": "file", "path": n, "size": len(c), "oid": "b" * 40} for n, c in hold.items()]
            )
        elif path.startswith("/api/models/org/crystals"):
            names = [{"rfilename": name} for name in hold]
            self._json({"id": "org/crystals", "sha": "a" * 40, "siblings": names, "private": False})
        elif "/resolve/" in path and path.rsplit("/", maxsplit=1)[-1] in hold:
            content = hold[path.rsplit("/", maxsplit=1)[-1]]
            tag = hashlib.sha256(content).hexdigest()
            self._answer(200, content, ETag=f'"{tag}"', X_Repo_Commit="a" * 40)
        elif path.startswith("/files/"):
            content = hold[path[7:]]
            start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
            cut = self.server.cut.pop(0) if self.server.cut else len(content)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            self.wfile.write(content[start : max(start, cut)])
            self.close_connection = True
        else:
            self._json({"error": "not here"}, 404)

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, None))
        if self.path.endswith("/repos/create"):
            self._json({"url": f"{self.server.address}/org/new", "name": "org/new"})
        elif "/preupload/" in self.path:
            files = json.loads(content)["files"]
            told = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            self._json({"files": told})
        elif "/commit/" in self.path:
            for line in content.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.server.pushed[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            address = f"{self.server.address}/org/new/commit/{'1' * 40}"
            told = {"commitUrl": address, "commitOid": "1" * 40, "commitMessage": "m"}
            self._json(told | {"hookOutput": "", "success": True})
        else:
            self._json({}, 200)


@contextmanager
def open_shelf(monkeypatch, tmp_path):
    """Serve files as the Hub and Zenodo do, and point both clients to the server."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Shelf)
    server.files, server.asked, server.pushed, server.cut, server.record = {}, [], {}, [], {}
    server.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("CRYSTALLM_CACHE", str(tmp_path / "cache"))
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_PROGRESS_BARS", True)
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def archive(content: bytes, name="crystallm_v1_small/ckpt.pt") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as file:
        for member, text in ((f"{name.split('/', maxsplit=1)[0]}/notes.txt", b"x"), (name, content)):
            info = tarfile.TarInfo(member)
            info.size = len(text)
            file.addfile(info, io.BytesIO(text))
    return packed.getvalue()


def publish_small_model(shelf):
    """Put the archive of a small published model on the shelf, with its record; return its bytes."""
    packed = archive((GOLDEN / "checkpoint_nobias" / "ckpt.pt").read_bytes())
    shelf.files["small"] = packed
    shelf.record |= {
        "files": [
            {
                "key": "crystallm_v1_small.tar.gz",
                "size": len(packed),
                "checksum": f"md5:{hashlib.md5(packed, usedforsecurity=False).hexdigest()}",
                "links": {"self": f"{shelf.address}/files/small"},
            }
        ]
    }
    return packed
