"""An object store within the tests: the part of the JSON API of Google Cloud Storage that a working directory needs."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Bucket:
    """Objects by name, each with the generation that it was written as."""

    objects: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    generation: int = 0
    read_only: bool = False
    unfinished: dict[str, bytes] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def write(self, name: str, content: bytes) -> None:
        self.generation += 1
        self.objects[name] = self.generation, content

    def about(self, name: str) -> dict:
        generation, content = self.objects[name]
        return {"kind": "storage#object", "name": name, "size": str(len(content)), "generation": str(generation)}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer is sent whole: a second small packet would wait 40 ms for the first to be acknowledged
    disable_nagle_algorithm = True
    buckets: dict[str, Bucket]

    def log_message(self, *_: object) -> None:
        pass

    def answer(self, status: int, content: dict | bytes = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for key, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        asked = {key: values[0] for key, values in parse_qs(url.query).items()}
        found = re.fullmatch(r"(?:/upload|/download)?/storage/v1/b/([^/]+)(?:/o(?:/([^/]+)(?:/(.*))?)?)?", url.path)
        bucket = found and self.buckets.get(unquote(found[1]))
        if bucket is None:
            return self.answer(404, {"error": {"code": 404, "message": "no such bucket"}})
        name, action = unquote(found[2] or ""), found[3]
        with bucket.lock:
            if self.command != "GET" and bucket.read_only:
                return self.answer(403, {"error": {"code": 403, "message": "no permission to write"}})
            if url.path.startswith("/upload"):
                return self.upload(bucket, asked, body)
            if not name:
                whole = url.path.endswith("/o")
                return self.answer(200, listing(bucket, asked) if whole else {"name": found[1]})
            if name not in bucket.objects:
                return self.answer(404, {"error": {"code": 404, "message": "no such object"}})
            return self.existing(bucket, name, action, asked)

    do_GET = do_POST = do_PUT = do_DELETE = handle_request  # noqa: N815

    def upload(self, bucket: Bucket, asked: dict[str, str], body: bytes) -> None:
        name = asked.get("name")
        if asked["uploadType"] == "resumable":
            bucket.unfinished[name] = b""
            return self.answer(200, Location=f"http://{self.headers['Host']}{self.path}".replace("resumable", "chunk"))
        if asked["uploadType"] == "chunk":
            body = bucket.unfinished[name] = bucket.unfinished[name] + body
            if self.headers["Content-Range"].endswith("/*"):
                return self.answer(308, Range=f"bytes=0-{len(body) - 1}")
        if asked["uploadType"] == "multipart":
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])[1].encode()
            _, about, content, _ = body.split(b"--" + boundary)
            name = json.loads(about.partition(b"\n\n")[2] or about.partition(b"\r\n\r\n")[2])["name"]
            separator = b"\r\n\r\n" if b"\r\n\r\n" in content else b"\n\n"
            body = content.partition(separator)[2]
            body = body.removesuffix(b"\n").removesuffix(b"\r")
        current = bucket.objects[name][0] if name in bucket.objects else 0
        if int(asked.get("ifGenerationMatch", current)) != current:
            return self.answer(412, {"error": {"code": 412, "message": "another generation"}})
        bucket.write(name, body)
        return self.answer(200, bucket.about(name))

    def existing(self, bucket: Bucket, name: str, action: str | None, asked: dict[str, str]) -> None:
        generation, content = bucket.objects[name]
        if self.command == "DELETE":
            del bucket.objects[name]
            return self.answer(204)
        if action:
            target = unquote(action.rpartition("/o/")[2])
            bucket.write(target, content)
            if action.startswith("moveTo"):
                del bucket.objects[name]
            return self.answer(200, bucket.about(target) | {"done": True, "resource": bucket.about(target)})
        if asked.get("alt") != "media":
            return self.answer(200, bucket.about(name))
        if asked.get("ifGenerationNotMatch") == str(generation):
            return self.answer(304)
        headers = {"x_goog_generation": str(generation)}
        if asked_range := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            first, last = int(asked_range[1]), min(int(asked_range[2] or len(content)), len(content) - 1)
            headers["Content_Range"] = f"bytes {first}-{last}/{len(content)}"
            return self.answer(206, content[first : last + 1], **headers)
        return self.answer(200, content, **headers)


def listing(bucket: Bucket, asked: dict[str, str]) -> dict:
    prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter")
    items, prefixes = [], set()
    for name in sorted(bucket.objects):
        after, before = name >= asked.get("startOffset", ""), name < asked.get("endOffset", "\U0010ffff")
        if not (name.startswith(prefix) and after and before):
            continue
        head, separator, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
        if separator:
            prefixes.add(prefix + head + separator)
        else:
            items.append(bucket.about(name))
    return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that has heard enough hangs up."""


@contextmanager
def serving(buckets: dict[str, Bucket]) -> Iterator[str]:
    """A server of these buckets; gives its address."""
    server = Server(("127.0.0.1", 0), type("Bound", (Handler,), {"buckets": buckets}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
