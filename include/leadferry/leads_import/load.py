"""One file of leads into one flow, in one transaction: all of it or nothing, and never twice.

Records stream through COPY into a temporary table, and from there into `lead` by one statement,
so that the memory of this process does not grow with the file.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from psycopg import Connection as PsycopgConnection
from sqlalchemy import Connection, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert

from leadferry.errors import LeadImportError
from leadferry.leads_import.layout import Layout
from leadferry.leads_import.records import Bad, Found, encoding_of, read_records
from leadferry.leads_import.rejects import Rejects
from leadferry.store.audit import record
from leadferry.store.database import Database
from leadferry.store.tables import lead_import
from leadferry.zones import time_zone

LONGEST_EXTERNAL_ID = 500
"""Characters; the index over them has a limit of its own."""

_CHUNK = 1024 * 1024

_BLOCK = 2000
"""Records per write to COPY, and per report of progress."""

_STAGE = text(
    "CREATE TEMPORARY TABLE staged_lead (external_id text, received_at timestamptz, fields jsonb) ON COMMIT DROP"
)
_COPY = "COPY staged_lead (external_id, received_at, fields) FROM STDIN"

# A temporary table is read in the order in which it was written, so ids follow the lines without a sort.
_INSERT = """
INSERT INTO lead (flow, external_id, received_at, fields, import_id)
SELECT :flow, external_id, coalesce(received_at, now()), {fields}, :import_id FROM staged_lead
ON CONFLICT (flow, external_id) WHERE external_id IS NOT NULL DO NOTHING
"""
_RENAMED = """
(SELECT coalesce(jsonb_object_agg(coalesce(CAST(:names AS jsonb) ->> key, key), value), '{}')
 FROM jsonb_each(fields))
"""


@dataclass(frozen=True, kw_only=True)
class ImportResult:
    """What an import did."""

    file: str
    flow: str
    loaded: int = 0
    rejected: int = 0
    duplicates: int = 0
    """Leads whose external id the flow had already, or that stand in the file twice."""
    already_imported_at: datetime | None = None
    """When this very file was imported into this flow before; then nothing was loaded."""
    rejects_file: Path | None = None
    dry_run: bool = False

    @property
    def ok(self) -> bool:
        """Whether there is nothing to look at: every lead of the file is in the store, and some are."""
        return not self.rejected

    def __str__(self) -> str:
        """Say it in one sentence."""
        if self.already_imported_at is not None:
            return f"0 leads loaded: {self.file} was imported into flow {self.flow} on {self.already_imported_at:%Y-%m-%d %H:%M} UTC"
        said = f"{self.loaded:,} leads {'would be ' if self.dry_run else ''}loaded into flow {self.flow}, {self.rejected:,} rejected"
        return said + (f", {self.duplicates:,} known already" if self.duplicates else "")


class _UndoError(Exception):
    """Rolls the transaction back although nothing went wrong."""


def import_leads(  # noqa: PLR0913  a file, a flow and how: each is one option of the command
    database: Database,
    path: Path,
    *,
    flow: str,
    layout: Layout | None = None,
    rejects: Path | None = None,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
    actor: str | None = None,
) -> ImportResult:
    """Load a file of leads into a flow.

    The same bytes are loaded into a flow once; a second call says so and loads nothing. An import of which no
    lead was loaded is not remembered, so it may be tried again with another layout.

    Args:
        database: the lead store.
        path: the file; must not change meanwhile.
        flow: the campaign or form that the leads came in by.
        layout: how leads stand in the file.
        rejects: where bad lines go; beside the file, as `<file>.rejects.csv`, when left out.
        dry_run: do everything, then undo it; only the rejects file stays.
        progress: called now and then with the number of records read.
        actor: who imports by hand; leaves an audit row if anything was loaded.

    Raises:
        LeadImportError: the file could not be read at all; nothing was loaded.
        StoreError: the store refused; nothing was loaded.
    """
    if not flow.strip():
        raise LeadImportError("The flow has no name", hint="Say which one with --flow")
    layout = layout or Layout()
    with _file_errors(path), Rejects(rejects or path.with_name(f"{path.name}.rejects.csv")) as bad:
        load = _Load(
            path=path,
            flow=flow,
            layout=layout,
            rejects=bad,
            dry_run=dry_run,
            progress=progress,
            actor=actor,
        )
        return load.run(database, _Fingerprint.of(path, layout))


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    """Say which file could not be read or written, without what stands in it."""
    try:
        yield
    except OSError as error:
        name = Path(error.filename).name if isinstance(error.filename, str) else path.name
        raise LeadImportError(
            f"{name}: {error.strerror or type(error).__name__}",
            hint="Correct the path or its rights; nothing was loaded",
        ) from None
    except UnicodeError as error:
        raise LeadImportError(
            f"{path.name} is not in the encoding that was said ({type(error).__name__})",
            hint="Say the right one with --encoding; nothing was loaded",
        ) from None


@dataclass(kw_only=True)
class _Load:
    """One import under way."""

    path: Path
    flow: str
    layout: Layout
    rejects: Rejects
    dry_run: bool
    progress: Callable[[int], None] | None
    actor: str | None
    loaded: int = 0
    duplicates: int = 0

    def run(self, database: Database, file: _Fingerprint) -> ImportResult:
        try:
            with database.transaction() as connection:
                import_id = self._announce(connection, file.sha256)
                if import_id is None:
                    return self._result(already=_imported_at(connection, self.flow, file.sha256))
                self._load(connection, import_id)
                self._audit(connection, import_id)
                file.require_same(self.path)
                self.rejects.publish()
                self._undo_if_not_meant()
        except _UndoError:
            pass
        return self._result()

    def _audit(self, connection: Connection, import_id: int) -> None:
        if self.actor is not None:
            detail = {"import": import_id, "leads": self.loaded, "rejected": self.rejects.count}
            subject = f"flow {self.flow}"
            record(connection, actor=self.actor, action="leads.import", subject=subject, detail=detail)

    def _undo_if_not_meant(self) -> None:
        if self.dry_run or not (self.loaded or self.duplicates):
            raise _UndoError

    def _announce(self, connection: Connection, sha256: str) -> int | None:
        """Record the import before its leads: of two at once, the second waits here and finds it done."""
        row = {"flow": self.flow, "file_name": self.path.name, "sha256": sha256, "rows": 0, "rejected": 0}
        statement = upsert(lead_import).values(row).on_conflict_do_nothing().returning(lead_import.c.id)
        found: int | None = connection.scalar(statement)
        return found

    def _load(self, connection: Connection, import_id: int) -> None:
        connection.execute(_STAGE)
        staged = self._copy(connection)
        fields = _RENAMED if self._renames_in_store else "fields"
        names = {"names": json.dumps(self.layout.names)} if self._renames_in_store else {}
        insert = text(_INSERT.format(fields=fields))
        self.loaded = connection.execute(
            insert, {"flow": self.flow, "import_id": import_id, **names}
        ).rowcount
        self.duplicates = staged - self.loaded
        connection.execute(
            update(lead_import)
            .where(lead_import.c.id == import_id)
            .values(rows=self.loaded, rejected=self.rejects.count, duplicates=self.duplicates)
        )

    @property
    def _renames_in_store(self) -> bool:
        """JSON passes as it is, so that its numbers stay exact; its keys are renamed by the database."""
        return bool(self.layout.names) and self.layout.type_of(self.path) == "ndjson"

    def _copy(self, connection: Connection) -> int:
        driver: PsycopgConnection[Any] | None = connection.connection.driver_connection
        assert driver is not None  # noqa: S101  a connection in a transaction has one
        rows = 0
        with driver.cursor() as cursor, cursor.copy(_COPY) as copy:
            for block in self._blocks():
                copy.write("".join(block))
                rows += len(block)
        return rows

    def _blocks(self) -> Iterator[list[str]]:
        row = _Row(self.layout)
        block: list[str] = []
        read = 0
        for read, one in enumerate(read_records(self.path, self.layout), start=1):
            if isinstance(one, Bad):
                self.rejects.add(one.line, one.reason, one.record)
            elif isinstance(line := row.written(one), str):
                block.append(line)
            else:
                self.rejects.add(line.line, line.reason, line.record)
            if read % _BLOCK == 0:
                yield block
                block = []
                self._report(read)
        yield block
        self._report(read)

    def _report(self, read: int) -> None:
        if self.progress is not None:
            self.progress(read)

    def _result(self, *, already: datetime | None = None) -> ImportResult:
        return ImportResult(
            file=self.path.name,
            flow=self.flow,
            loaded=self.loaded,
            rejected=self.rejects.count,
            duplicates=self.duplicates,
            already_imported_at=already,
            rejects_file=self.rejects.path if self.rejects.count else None,
            dry_run=self.dry_run,
        )


class _Row:
    """Writes leads as COPY reads them."""

    def __init__(self, layout: Layout) -> None:
        self._has_id = layout.external_id is not None
        self._has_time = layout.received_at is not None
        self._format = layout.received_format
        self._zone = time_zone(layout.timezone)

    def written(self, lead: Found) -> str | Bad:
        """Return the line for COPY, or why there is none."""
        try:
            external_id = _escaped(self._external_id(lead.external_id)) if self._has_id else r"\N"
            received_at = self._received_at(lead.received_at) if self._has_time else r"\N"
        except ValueError as error:
            return Bad(lead.line, lead.record, str(error))
        return f"{external_id}\t{received_at}\t{_escaped(lead.fields)}\n"

    def _external_id(self, value: Any) -> str:
        is_id = isinstance(value, (str, int)) and not isinstance(value, bool)
        text = str(value).strip() if is_id else ""
        if not text:
            raise ValueError("the id is missing or is neither text nor a whole number")
        if len(text) > LONGEST_EXTERNAL_ID:
            raise ValueError(f"the id is longer than {LONGEST_EXTERNAL_ID} characters")
        return text

    def _received_at(self, value: Any) -> str:
        moment = self._moment(value.strip()) if isinstance(value, str) else None
        if moment is None:
            raise ValueError(f"the time of arrival is missing or not {self._format or 'ISO 8601'}")
        return moment.isoformat()

    def _moment(self, written: str) -> datetime | None:
        try:
            moment = (
                datetime.strptime(written, self._format)  # noqa: DTZ007  the zone comes next
                if self._format
                else datetime.fromisoformat(written)
            )
            return (moment if moment.tzinfo else moment.replace(tzinfo=self._zone)).astimezone(UTC)
        except (ValueError, OverflowError):
            return None


def _escaped(value: str) -> str:
    """Escape for COPY's text format. JSON holds no raw tab or line end, so for it one test is enough."""
    if "\\" in value:
        value = value.replace("\\", "\\\\")
    if "\t" in value or "\n" in value or "\r" in value:
        value = value.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return value


def _imported_at(connection: Connection, flow: str, sha256: str) -> datetime:
    found = select(lead_import.c.imported_at).where(
        lead_import.c.flow == flow, lead_import.c.sha256 == sha256
    )
    imported_at: datetime = connection.execute(found).scalar_one()
    return imported_at.astimezone(UTC)


@dataclass(frozen=True)
class _Fingerprint:
    """Which bytes are imported: hashed first, read after, and compared before the commit."""

    size: int
    changed_at_ns: int
    sha256: str

    @classmethod
    def of(cls, path: Path, layout: Layout) -> Self:
        """Read the file once; a text file that is not in its encoding is refused here, as a whole."""
        is_text = layout.type_of(path) != "xlsx"
        encoding = encoding_of(path, layout) if is_text else None
        found = path.stat()
        return cls(found.st_size, found.st_mtime_ns, _sha256(path, encoding=encoding))

    def require_same(self, path: Path) -> None:
        """Refuse a file that somebody is still writing."""
        found = path.stat()
        if (found.st_size, found.st_mtime_ns) != (self.size, self.changed_at_ns):
            raise LeadImportError(
                f"{path.name} changed while it was read", hint="Import it again when it is complete"
            )


def _sha256(path: Path, *, encoding: str | None) -> str:
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder(encoding)("strict") if encoding else None
    lines = 1
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            if decoder is None:
                continue
            try:
                decoder.decode(chunk)
            except UnicodeError as error:
                raise _wrong_encoding(path, encoding, error, lines=lines, chunk=chunk) from None
            lines += chunk.count(b"\n")
    return digest.hexdigest()


def _wrong_encoding(
    path: Path, encoding: str | None, error: UnicodeError, *, lines: int, chunk: bytes
) -> LeadImportError:
    before = chunk[: error.start] if isinstance(error, UnicodeDecodeError) else b""
    return LeadImportError(
        f"{path.name} is not {encoding}: line {lines + before.count(bytes([10]))} holds other bytes",
        hint="Say what it is, for example --encoding cp1252; nothing was loaded",
    )
