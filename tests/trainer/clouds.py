"""The part of Google's and Azure's storage protocols that reading needs, on loopback: listing, properties, ranges."""

import hashlib
import json
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from trainer.servers import Quiet

BUCKET = "data"


def below(names: dict[str, bytes], prefix: str, *, delimiter: bool) -> tuple[list[str], list[str]]:
    """Objects and common prefixes, as an object store lists them."""
    found = [name for name in sorted(names) if name.startswith(prefix)]
    if not delimiter:
        return found, []
    plain = [name for name in found if "/" not in name[len(prefix) :]]
    folders = sorted({prefix + name[len(prefix) :].split("/")[0] + "/" for name in found if name not in plain})
    return plain, folders


class _Store(Quiet):
    files: ClassVar[dict[str, bytes]]

    def part(self, body: bytes, **headers: str) -> None:
        """A body, or the range of it that is asked for."""
        wanted = self.headers.get("x-ms-range") or self.headers.get("Range")
        if not wanted:
            self.answer(200, body, **headers)
            return
        begin, _, end = wanted.removeprefix("bytes=").partition("-")
        content = body[int(begin) : int(end or len(body)) + 1]
        if not content:
            self.answer(416)
            return
        self.answer(206, content, Content_Range=f"bytes {begin}-{int(begin) + len(content) - 1}/{len(body)}", **headers)


class Google(_Store):
    """The JSON API of Cloud Storage, for one public bucket."""

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        """Listing, properties, content."""
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")
        name = unquote(parts[-1])
        at = parts.index("b") + 1 if "b" in parts else len(parts)
        if parts[at : at + 1] != [BUCKET]:
            self.answer(404, b'{"error": {"code": 404, "message": "The specified bucket does not exist."}}')
        elif parts[-1] == "o":
            self._list(query)
        elif name not in self.files:
            self.answer(404, b'{"error": {"code": 404, "message": "No such object"}}')
        elif query.get("alt") == "media":
            self.part(self.files[name])
        else:
            self._json(self._object(name))

    def _list(self, query: dict[str, str]) -> None:
        names, folders = below(self.files, query.get("prefix", ""), delimiter="delimiter" in query)
        self._json({"kind": "storage#objects", "items": [self._object(name) for name in names], "prefixes": folders})

    def _object(self, name: str) -> dict[str, Any]:
        body = self.files[name]
        sign = hashlib.md5(body).hexdigest()
        return {
            "kind": "storage#object", "name": name, "bucket": BUCKET, "size": str(len(body)), "etag": sign,
            "md5Hash": sign, "generation": "1", "updated": "2026-01-01T00:00:00.000Z",
            "timeCreated": "2026-01-01T00:00:00.000Z",
        }  # fmt: skip

    def _json(self, value: Any) -> None:
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")


_DATE = "Thu, 01 Jan 2026 00:00:00 GMT"


class Azure(_Store):
    """Blob storage for one container of one account; keys are not checked."""

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        """Listing, properties, content."""
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        _, container, *rest = unquote(url.path).strip("/").split("/")
        name = "/".join(rest)
        if container != BUCKET:
            self._absent("ContainerNotFound")
        elif query.get("comp") == "list":
            self._list(query)
        elif not name:
            self.answer(200, ETag='"c"', Last_Modified=_DATE)
        elif name not in self.files:
            self._absent("BlobNotFound")
        else:
            self.part(self.files[name], **self._headers(self.files[name]))

    def _absent(self, code: str) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>not here</Message></Error>".encode()
        self.answer(404, body, x_ms_error_code=code, Content_Type="application/xml")

    def _headers(self, body: bytes) -> dict[str, str]:
        return {
            "ETag": f'"{hashlib.md5(body).hexdigest()}"', "Last_Modified": _DATE, "x_ms_blob_type": "BlockBlob",
            "Content_Type": "application/octet-stream", "Accept_Ranges": "bytes", "x_ms_creation_time": _DATE,
        }  # fmt: skip

    def _list(self, query: dict[str, str]) -> None:
        names, folders = below(self.files, query.get("prefix", ""), delimiter="delimiter" in query)
        entries = "".join(self._blob(name) for name in names)
        entries += "".join(f"<BlobPrefix><Name>{escape(folder)}</Name></BlobPrefix>" for folder in folders)
        page = (
            f"<?xml version='1.0' encoding='utf-8'?><EnumerationResults ContainerName='{BUCKET}'>"
            f"<Blobs>{entries}</Blobs><NextMarker/></EnumerationResults>"
        )
        self.answer(200, page.encode(), Content_Type="application/xml")

    def _blob(self, name: str) -> str:
        body = self.files[name]
        return (
            f"<Blob><Name>{escape(name)}</Name><Properties><Content-Length>{len(body)}</Content-Length>"
            f"<Etag>{hashlib.md5(body).hexdigest()}</Etag><Last-Modified>{_DATE}</Last-Modified>"
            f"<Creation-Time>{_DATE}</Creation-Time><BlobType>BlockBlob</BlobType></Properties></Blob>"
        )
