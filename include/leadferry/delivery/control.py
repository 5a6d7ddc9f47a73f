"""The files that tell of the files: checksums, the manifest, the marker that all is there. Sent in this order, last."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from leadferry.archive import Archive
from leadferry.batch.files import Manifest
from leadferry.batch.model import Batch
from leadferry.batch.routes import renditions
from leadferry.delivery.plan import manifests
from leadferry.delivery.variables import file_variables, marked
from leadferry.file_names import file_name
from leadferry.states import FileKind
from leadferry.store.ledger import Delivery, RenderedFile


class Companion(NamedTuple):
    """A small file without leads, and what the ledger says of it."""

    content: bytes
    file: RenderedFile


def companions(batch: Batch, delivery: Delivery, files: Sequence[RenderedFile]) -> Iterator[Companion]:
    """Yield what accompanies these files, in the order in which it is sent."""
    yield from _checksums(batch, delivery, files)
    for view, key in manifests(batch, files).items():
        yield from _manifest_of(batch, delivery, view, key=key)
    if batch.done_marker is not None:
        yield small_file(delivery, FileKind.DONE, "done", _name(batch, delivery, batch.done_marker.name), b"")


def told_of(batch: Batch, delivery: Delivery, files: Sequence[RenderedFile]) -> Iterator[Companion]:
    """Yield the checksums and the manifest of exactly these files, for an addressee who gets no others."""
    yield from _checksums(batch, delivery, files)
    yield from _manifest_of(batch, delivery, files, key="manifest")


def store(archive: Archive, companion: Companion) -> RenderedFile:
    """Put a small file into the archive."""
    with archive.new_file() as out:
        out.write(companion.content)
        archive.publish(out, companion.file.archive_key)
    return companion.file


def _checksums(batch: Batch, delivery: Delivery, files: Sequence[RenderedFile]) -> Iterator[Companion]:
    checked = {one.key for one in renditions(batch.loose_files, batch.destinations) if one.file.checksum}
    checked |= {one.id for one in batch.bundles if one.checksum}
    for file in files:
        if file.key in checked:
            yield small_file(
                delivery, FileKind.CHECKSUM, file.key, f"{file.name}.sha256", _checksum(file), part=file.part
            )


def _manifest_of(
    batch: Batch, delivery: Delivery, files: Sequence[RenderedFile], *, key: str
) -> Iterator[Companion]:
    if batch.manifest is not None:
        name = _name(batch, delivery, batch.manifest.name)
        content = _manifest(batch.manifest, batch, delivery, files)
        yield small_file(delivery, FileKind.MANIFEST, key, name, content)


def _name(batch: Batch, delivery: Delivery, template: str) -> str:
    return marked(delivery, file_name(template, file_variables(batch, delivery)))


def _checksum(file: RenderedFile) -> bytes:
    """Return one line as `sha256sum --check` reads it."""
    return f"{file.sha256}  {file.name}\n".encode()


def _manifest(manifest: Manifest, batch: Batch, delivery: Delivery, files: Sequence[RenderedFile]) -> bytes:
    parts = Counter(file.key for file in files)
    leads: Counter[str] = Counter()
    for file in files:
        leads[file.key] += file.rows
    rows = [
        {
            "name": file.name,
            "rows": file.rows,
            "bytes": file.size,
            "sha256": file.sha256,
            "file": file.key.partition(".")[0],
            "part": file.part,
            "parts": parts[file.key],
            **({"members": [_member(one) for one in file.members]} if file.members else {}),
        }
        for file in files
    ]
    about = file_variables(batch, delivery)["delivery"]
    head: dict[str, Any] = {
        "batch_id": batch.id,
        "delivery_id": delivery.id,
        "delivery_number": delivery.number,
        "delivery_date": about["date"],
        "period": about["period"],
        "leads": max(leads.values()),
    }
    if manifest.format == "json":
        return (json.dumps({**head, "files": rows}, indent=2, ensure_ascii=False) + "\n").encode()
    table = io.StringIO()
    lines = list(_with_members(rows))
    # What stands inside a bundle has its name in one more column; without bundles there is none.
    writer = csv.DictWriter(table, list(head | lines[0] | lines[-1]), restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({**head, **line} for line in lines)
    return table.getvalue().encode()


def _member(member: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": member["name"],
        "rows": member["rows"],
        "bytes": member["size"],
        "sha256": member["sha256"],
        "file": member["key"],
        "part": member["part"],
    }


def _with_members(rows: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield the lines of a table: after each bundle those of the files inside."""
    for row in rows:
        members = row.get("members", ())
        yield {key: value for key, value in row.items() if key != "members"}
        for member in members:
            parts = sum(one["file"] == member["file"] for one in members)
            yield {**member, "parts": parts, "inside": row["name"]}


def small_file(  # noqa: PLR0913  (what a small file consists of)
    delivery: Delivery, kind: FileKind, key: str, name: str, content: bytes, *, part: int = 1
) -> Companion:
    """Return a file that is made at once, with what the ledger says of it; its name's ending tells its type."""
    sha256 = hashlib.sha256(content).hexdigest()
    media_types = {"json": "application/json", "csv": "text/csv", "png": "image/png"}
    file = RenderedFile(
        kind=kind,
        key=key,
        part=part,
        name=name,
        sha256=sha256,
        size=len(content),
        rows=0,
        media_type=media_types.get(name.rpartition(".")[2].lower(), "text/plain"),
        archive_key=f"{delivery.batch_id}/{delivery.id}/{kind}-{key}-{part}-{sha256[:16]}",
    )
    return Companion(content, file)
