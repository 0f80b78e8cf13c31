"""A local server that speaks the part of S3's protocol that shared storage uses; its objects lie in memory."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

_NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


class S3Server(ThreadingHTTPServer):
    """Buckets by name, and a fault in which every request ends: ``refuses`` or ``hangs up``."""

    daemon_threads = True

    def __init__(self, *buckets: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.buckets: dict[str, dict[str, bytes]] = {name: {} for name in buckets}
        self.fault: str | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @contextmanager
    def running(self) -> Iterator[Self]:
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            self.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: S3Server

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def do_PUT(self) -> None:
        body = self._body()
        bucket, key, _ = self._target()
        if self._refused(bucket, needed=bool(key)):
            return
        if not key:
            self.server.buckets.setdefault(bucket, {})
            self._answer(200)
        elif source := self.headers.get("x-amz-copy-source"):
            origin, _, name = unquote(source).lstrip("/").partition("/")
            self.server.buckets[bucket][key] = data = self.server.buckets[origin][name]
            self._answer(200, f"<CopyObjectResult>{_times(data)}</CopyObjectResult>".encode())
        else:
            self.server.buckets[bucket][key] = body
            self._answer(200, headers={"ETag": _etag(body)})

    def do_POST(self) -> None:
        body = self._body()
        bucket, _, query = self._target()
        if self._refused(bucket):
            return
        assert "delete" in query, self.path
        keys = [str(found.text) for found in ElementTree.fromstring(body).iter() if found.tag.endswith("Key")]
        for key in keys:
            self.server.buckets[bucket].pop(key, None)
        deleted = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
        self._answer(200, f"<DeleteResult {_NAMESPACE}>{deleted}</DeleteResult>".encode())

    def do_DELETE(self) -> None:
        bucket, key, _ = self._target()
        if not self._refused(bucket):
            self.server.buckets[bucket].pop(key, None)
            self._answer(204)

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing: the tests' output is for the tests."""

    def _get(self) -> None:
        bucket, key, query = self._target()
        if self._refused(bucket):
            return
        objects = self.server.buckets[bucket]
        if not key:
            self._answer(200, _listing(objects, query) if "list-type" in query else b"")
        elif key not in objects:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            self._object(objects[key])

    def _object(self, data: bytes) -> None:
        headers = {"ETag": _etag(data), "Last-Modified": format_datetime(datetime.now(UTC), usegmt=True)}
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if wanted is None:
            self._answer(200, data, headers)
        elif int(wanted[1]) >= len(data):
            self._answer(416, b"<Error><Code>InvalidRange</Code></Error>")
        else:
            end = min(int(wanted[2] or len(data)), len(data) - 1)
            headers["Content-Range"] = f"bytes {wanted[1]}-{end}/{len(data)}"
            self._answer(206, data[int(wanted[1]) : end + 1], headers)

    def _refused(self, bucket: str, *, needed: bool = True) -> bool:
        if self.server.fault == "hangs up":
            self.close_connection = True
        elif self.server.fault == "refuses":
            self._answer(403, b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>")
        elif needed and bucket not in self.server.buckets:
            self._answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        else:
            return False
        return True

    def _target(self) -> tuple[str, str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        return bucket, key, parse_qs(parts.query, keep_blank_values=True)

    def _body(self) -> bytes:
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return data
        whole = b""
        while data:
            size, _, data = data.partition(b"\r\n")
            length = int(size.partition(b";")[0], 16)
            if not length:
                break
            whole, data = whole + data[:length], data[length + 2 :]
        return whole

    def _answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _listing(objects: dict[str, bytes], query: dict[str, list[str]]) -> bytes:
    prefix, delimiter = (query.get(name, [""])[0] for name in ("prefix", "delimiter"))
    contents, prefixes = [], set()
    for key in sorted(name for name in objects if name.startswith(prefix)):
        head, found, _ = key[len(prefix) :].partition(delimiter) if delimiter else ("", "", "")
        if found:
            prefixes.add(f"{prefix}{head}{delimiter}")
        else:
            size = f"<Size>{len(objects[key])}</Size><StorageClass>STANDARD</StorageClass>"
            contents.append(f"<Contents><Key>{escape(key)}</Key>{_times(objects[key])}{size}</Contents>")
    common = "".join(f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(prefixes))
    counted = f"<KeyCount>{len(contents) + len(prefixes)}</KeyCount><IsTruncated>false</IsTruncated>"
    return f"<ListBucketResult {_NAMESPACE}>{counted}{''.join(contents)}{common}</ListBucketResult>".encode()


def _times(data: bytes) -> str:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return f"<LastModified>{now}</LastModified><ETag>{escape(_etag(data))}</ETag>"


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'
