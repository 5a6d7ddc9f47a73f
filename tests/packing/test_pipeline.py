from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path

import pyrage
import pytest
from pydantic import TypeAdapter, ValidationError
from pysequoia import Tsk, decrypt

from leadferry.archive import Archive
from leadferry.packing import Compression, Encryption
from leadferry.packing.age import Age
from leadferry.packing.gzip import Gzip
from leadferry.packing.pgp import Pgp
from leadferry.packing.pipeline import Packing
from leadferry.packing.xlsx_password import XlsxPassword
from leadferry.packing.zip import Zip
from leadferry.packing.zip_aes import ZipAes
from leadferry.packing.zstd import Zstd, _library
from leadferry.secrets import FromConnection

IDENTITY = pyrage.x25519.Identity.generate()
AGE = Age(recipients=[str(IDENTITY.to_public())])
BUYER = Tsk.generate(user_id="Buyer <buyer@example.com>")
PGP = Pgp(recipients=["acme"])
PASSWORD = "some pass words"


@pytest.fixture
def config(tmp_path: Path, connection: Callable[..., None]) -> Path:
    """A config folder with a key, and the connections."""
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "acme.asc").write_text(str(BUYER.extract_certificate()))
    connection("secret", password=PASSWORD)
    return tmp_path


def packings() -> dict[str, Packing]:
    return {
        "none": Packing(),
        "gzip": Packing(compress=Gzip()),
        "zip": Packing(compress=Zip()),
        "zstd": Packing(compress=Zstd()),
        "zip_aes": Packing(encrypt=ZipAes(connection="secret")),
        "xlsx_password": Packing(encrypt=XlsxPassword(connection="secret")),
        "age": Packing(encrypt=AGE),
        "pgp": Packing(encrypt=PGP),
        "gzip+age": Packing(compress=Gzip(), encrypt=AGE),
        "zip+pgp": Packing(compress=Zip(), encrypt=PGP),
        "zstd+pgp": Packing(compress=Zstd(), encrypt=PGP),
    }


PACKED = {name: packing for name, packing in packings().items() if name != "none"}


@pytest.mark.req("C13")
@pytest.mark.parametrize(
    ("packing", "name", "inside", "media_type"),
    [
        ("none", "leads.csv", "leads.csv", "text/csv"),
        ("gzip", "leads.csv.gz", "leads.csv", "application/gzip"),
        ("zip", "leads.csv.zip", "leads.csv", "application/zip"),
        ("zstd", "leads.csv.zst", "leads.csv", "application/zstd"),
        ("zip_aes", "leads.csv.zip", "leads.csv", "application/zip"),
        ("age", "leads.csv.age", "leads.csv", "application/vnd.age"),
        ("pgp", "leads.csv.pgp", "leads.csv", "application/pgp-encrypted"),
        ("gzip+age", "leads.csv.gz.age", "leads.csv", "application/vnd.age"),
        ("zip+pgp", "leads.csv.zip.pgp", "leads.csv", "application/pgp-encrypted"),
    ],
)
def test_name_and_media_type_say_what_the_bytes_are(packing, name, inside, media_type):
    packed = packings()[packing]

    assert packed.file_name("leads.csv") == name
    assert packed.file_name(name) == name, "an ending that the batch file names already is not put twice"
    assert packed.member_name("leads.csv", extension="csv") == inside
    assert packed.member_name(name, extension="csv") == inside
    assert packed.media_type("text/csv") == media_type


@pytest.mark.req("C13")
@pytest.mark.parametrize(
    ("written", "file", "inside"),
    [
        ("leads.zip", "leads.zip", "leads.csv"),
        ("leads.ZIP", "leads.zip", "leads.csv"),
        ("leads", "leads.zip", "leads"),
        ("leads.txt.zip", "leads.txt.zip", "leads.txt"),
        (".zip", ".zip.zip", ".zip"),
    ],
)
def test_a_name_that_tells_only_the_packing_gets_the_format_inside(written, file, inside):
    packing = Packing(compress=Zip())

    assert packing.file_name(written) == file
    assert packing.member_name(written, extension="csv") == inside


def test_armored_pgp_and_a_protected_workbook_have_the_names_that_programs_expect():
    assert Packing(encrypt=Pgp(recipients=["acme"], armor=True)).file_name("x.csv") == "x.csv.asc"
    protected = Packing(encrypt=XlsxPassword(connection="secret"))
    assert protected.file_name("x.xlsx") == "x.xlsx"
    assert protected.media_type("application/x") == "application/x"


@pytest.mark.req("R092")
@pytest.mark.req("R093")
def test_the_order_is_compress_then_encrypt(pack, leads, config):
    packed = pack(packings()["gzip+age"], leads, extension="csv", config=config)
    boxed = pack(packings()["zip+pgp"], leads, extension="csv", config=config)
    fast = pack(packings()["zstd+pgp"], leads, extension="csv", config=config)

    assert gzip.decompress(pyrage.decrypt(packed, [IDENTITY])) == leads
    with zipfile.ZipFile(BytesIO(decrypt(boxed, decryptor=BUYER.decryptor()).bytes)) as box:
        assert box.read("leads.csv") == leads
    assert _library().decompress(decrypt(fast, decryptor=BUYER.decryptor()).bytes) == leads


@pytest.mark.parametrize("packing", packings())
def test_the_hash_is_that_of_the_finished_bytes(leads, config, tmp_path, packing):
    with Archive(str(tmp_path / "archive")).new_file() as out:
        with packings()[packing].open(out, name="leads.csv", extension="csv", config=config) as writer:
            writer.write(leads)
        assert not out.closed
        out.finish()
        stored = Path(out.path).read_bytes()

    assert out.sha256 == hashlib.sha256(stored).hexdigest()
    assert out.size == len(stored)
    assert (stored == leads) is (packing == "none")


@pytest.mark.req("R093")
@pytest.mark.parametrize("packing", PACKED)
@pytest.mark.parametrize("way", ["raised", "dropped", "aborted"])
def test_a_file_given_up_in_the_middle_is_complete_for_no_program(leads, config, write_only, packing, way):
    out = write_only()
    writer = PACKED[packing].open(out, name="leads.csv", extension="csv", config=config)
    if way == "raised":
        with pytest.raises(ZeroDivisionError):
            _fail_in_the_middle(writer, leads)
    else:
        writer.write(leads)
        if way == "aborted":
            writer.abort()
        del writer

    assert not complete(packing, out.content), "the writer finished what was given up"


def _fail_in_the_middle(writer, leads: bytes) -> None:
    with writer:
        writer.write(leads)
        raise ZeroDivisionError


@pytest.mark.parametrize("packing", PACKED)
def test_a_file_that_was_finished_is_complete_for_the_same_programs(pack, leads, config, packing):
    assert complete(packing, pack(PACKED[packing], leads, extension="csv", config=config))


def complete(packing: str, content: bytes) -> bool:
    outer = packing.rpartition("+")[-1]
    readers: dict[str, Callable[[], object]] = {
        "gzip": lambda: gzip.decompress(content),
        "zstd": lambda: _library().decompress(content),
        "zip": lambda: zipfile.ZipFile(BytesIO(content)),
        "zip_aes": lambda: zipfile.ZipFile(BytesIO(content)),
        "age": lambda: pyrage.decrypt(content, [IDENTITY]),
        "pgp": lambda: decrypt(content, decryptor=BUYER.decryptor()),
        "xlsx_password": lambda: 1 / len(content),
    }
    try:
        readers[outer]()
    except Exception:  # noqa: BLE001 - each library has its own words for damaged
        return False
    return bool(content)


@pytest.mark.parametrize("packing", packings())
def test_a_full_disk_is_told_as_what_it_is(leads, config, write_only, packing):
    writer = packings()[packing].open(write_only(room=100), name="leads.csv", extension="csv", config=config)

    with pytest.raises(OSError, match="No space left on device"):
        _fill(writer, leads)


def _fill(writer, leads: bytes) -> None:
    with writer:
        for _ in range(20):
            writer.write(leads)


@pytest.mark.parametrize("packing", packings())
def test_closing_twice_is_closing_once_and_nothing_can_be_written_after(config, write_only, packing):
    out = write_only()
    writer = packings()[packing].open(out, name="leads.csv", extension="csv", config=config)
    writer.write(b"1")
    writer.close()
    content = out.content
    writer.close()
    writer.abort()

    assert out.content == content
    with pytest.raises(ValueError, match="closed"):
        writer.write(b"2")


@pytest.mark.parametrize(
    ("compress", "encrypt", "of", "told"),
    [
        (
            None,
            XlsxPassword(connection="s"),
            "csv",
            "xlsx_password is for files of type xlsx, and this one is csv",
        ),
        (Gzip(), XlsxPassword(connection="s"), "xlsx", "xlsx_password compresses by itself"),
        (Zip(), ZipAes(connection="s"), "csv", "zip_aes compresses by itself"),
        (None, XlsxPassword(connection="s"), "xlsx", None),
        (Gzip(), AGE, "csv", None),
        (Zip(), None, "xlsx", None),
    ],
)
def test_what_cannot_be_combined_is_told(compress, encrypt, of, told):
    found = Packing(compress=compress, encrypt=encrypt).problems(format_type=of)

    assert len(found) == (told is not None)
    assert told is None or told in found[0]


def test_the_check_of_keys_reaches_the_encryption(config):
    now, ahead = datetime(2026, 1, 31, tzinfo=UTC), timedelta(days=14)
    missing = Packing(encrypt=Pgp(recipients=["nobody"]))

    assert [problem.fatal for problem in missing.key_problems(config=config, now=now, ahead=ahead)] == [True]
    assert not Packing(compress=Gzip()).key_problems(config=config, now=now, ahead=ahead)


@pytest.mark.parametrize(
    ("written", "model"),
    [("zip", Zip()), ("gzip", Gzip()), ("zstd", Zstd()), ({"type": "zip", "level": 9}, Zip(level=9))],
)
def test_a_compression_is_named_shortly_or_with_settings(written, model):
    adapter = TypeAdapter(Compression)

    assert adapter.validate_python(written) == model
    assert adapter.validate_python(model.model_dump(mode="json")) == model


@pytest.mark.parametrize(
    "written", ["rar", {"type": "zip", "level": 10}, {"type": "gzip", "password": "x"}, 1]
)
def test_a_compression_that_is_none_is_refused(written):
    with pytest.raises(ValidationError):
        TypeAdapter(Compression).validate_python(written)


@pytest.mark.parametrize(
    "model",
    [
        AGE,
        Pgp(
            recipients=["a", FromConnection(connection="b")], sign=FromConnection(connection="c"), armor=True
        ),
        XlsxPassword(connection="secret"),
        ZipAes(connection="secret", level=9),
    ],
    ids=lambda model: model.type,
)
def test_an_encryption_survives_the_store(model):
    assert (
        TypeAdapter(Encryption).validate_python(json.loads(json.dumps(model.model_dump(mode="json"))))
        == model
    )


@pytest.mark.req("F20")
@pytest.mark.parametrize("written", [{"type": "zip"}, {"type": "zipcrypto", "connection": "x"}, "zip_aes"])
def test_the_old_encryption_of_zip_files_does_not_exist_here(written):
    with pytest.raises(ValidationError):
        TypeAdapter(Encryption).validate_python(written)


def test_a_dag_file_that_imports_the_models_loads_no_library_of_theirs():
    heavy = ["pysequoia", "pyrage", "pyzipper", "cryptography", "airflow", "backports.zstd"]
    program = f"import leadferry.packing, leadferry.packing.pipeline, sys; print([m for m in {heavy} if m in sys.modules])"

    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert answer.stdout.strip() == "[]"


MEMORY = """
import json, os, sys
from pathlib import Path
from leadferry.packing import Compression, Encryption
from leadferry.packing.pipeline import Packing
from pydantic import TypeAdapter

class Nowhere:
    def write(self, data): return len(data)

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))

compress, encrypt = json.loads(sys.argv[1])
packing = Packing(
    compress=compress and TypeAdapter(Compression).validate_python(compress),
    encrypt=encrypt and TypeAdapter(Encryption).validate_python(encrypt),
)
block = os.urandom(1 << 20)
peaks = []
for megabytes in (12, 80):
    with packing.open(Nowhere(), name="x", extension="csv", config=Path(sys.argv[2])) as writer:
        for _ in range(megabytes):
            writer.write(block)
    peaks.append(peak())
print(peaks[1] - peaks[0])
"""


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="needs Linux, which tells a process's peak"
)
@pytest.mark.parametrize(
    "packing", ["gzip", "zip", "zstd", "zip_aes", "xlsx_password", "age", "pgp", "zstd+pgp"]
)
def test_memory_does_not_grow_with_the_file(config, packing):
    """From 12 MB to 80 MB; a copy of the file anywhere would show as 68 MB."""
    chosen = packings()[packing]
    written = json.dumps(
        [step and step.model_dump(mode="json") for step in (chosen.compress, chosen.encrypt)]
    )

    answer = subprocess.run(
        [sys.executable, "-c", MEMORY, written, str(config)], capture_output=True, text=True, check=False
    )

    assert answer.returncode == 0, answer.stderr
    assert float(answer.stdout) < 15
