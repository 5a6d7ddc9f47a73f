from __future__ import annotations

from pathlib import Path

import pytest

from leadferry.batch.problems import BatchFileError
from leadferry.batch.yaml_file import MAX_BYTES, MAX_DEPTH, parse_yaml, read_yaml


def read(text: str):
    return parse_yaml(text, shown="config/x.yaml")


def complaint(text: str) -> str:
    with pytest.raises(BatchFileError) as caught:
        read(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("no", "no"),
        ("NO", "NO"),
        ("y", "y"),
        ("N", "N"),
        ("true", True),
        ("True", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("09:00", "09:00"),
        ("12:30:45", "12:30:45"),
        ("190:20:30", "190:20:30"),
        ("2024-01-31", "2024-01-31"),
        ("2024-01-31T09:00:00Z", "2024-01-31T09:00:00Z"),
        ("02138", "02138"),
        ("010", "010"),
        ("-010", "-010"),
        ("00", "00"),
        ("0", 0),
        ("-0", 0),
        ("7", 7),
        ("+7", 7),
        ("-12", -12),
        ("1_000", "1_000"),
        ("1,000", "1,000"),
        ("0x1F", "0x1F"),
        ("0o17", "0o17"),
        ("0b11", "0b11"),
        ("123456789012345678", 123456789012345678),
        ("1234567890123456789", "1234567890123456789"),
        ("1.5", 1.5),
        ("-1.5", -1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("01.5", "01.5"),
        ("1e3", 1000.0),
        ("1.5E-2", 0.015),
        ("1e999", "1e999"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("1.2.3", "1.2.3"),
        ("+12025550143", 12025550143),
        ("'7'", "7"),
        ('"true"', "true"),
        ("!!str 7", "7"),
        ("=", "="),
        ("<", "<"),
    ],
)
def test_a_plain_word_is_what_it_looks_like(written, meant):
    value = read(f"key: {written}").data["key"]

    assert value == meant
    assert type(value) is type(meant)


def test_keys_are_texts_exactly_as_written():
    assert read("on: 1\n02138: 2\n1: 3\ntrue: 4\nDo Not Email: 5").data == {
        "on": 1,
        "02138": 2,
        "1": 3,
        "true": 4,
        "Do Not Email": 5,
    }


def test_anchors_and_merge_keys_work_and_the_own_key_wins():
    text = """\
a: &a {x: 1, y: 2}
b: {<<: *a, y: 3}
c: {<<: [{z: 1}, *a]}
d: [*a, *a]
"""

    data = read(text).data

    assert data["b"] == {"x": 1, "y": 3}
    assert data["c"] == {"z": 1, "x": 1, "y": 2}
    assert data["d"] == [{"x": 1, "y": 2}] * 2


def test_the_first_of_several_merged_mappings_wins():
    assert read("a: {<<: [{x: 1}, {x: 2}]}").data["a"] == {"x": 1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a:\n\tb: 1", "config/x.yaml:2:1: a tab stands where only spaces may be; indent with spaces"),
        ("a: b: c", "config/x.yaml:1:5: a colon stands where no key can be"),
        ("a: [1, 2", "config/x.yaml:2:1: a list is not closed"),
        ("a: {b: 1", "config/x.yaml:2:1: a mapping is not closed"),
        ("a: 'x", "config/x.yaml:1:6: a quote is opened here and never closed"),
        ("a: *x", "config/x.yaml:1:4: this alias (*name) has no anchor"),
        ("a: @x", "config/x.yaml:1:4: a value cannot start with '@'; put it in quotes"),
        ("a: %d", "config/x.yaml:1:4: a value cannot start with '%'; put it in quotes"),
        ("- a\nb: 1", "config/x.yaml:2:1: a list item ('- …') was expected"),
        ("a: - b", "config/x.yaml:1:4: a list item ('- …') cannot start here"),
        ('a: "\\q"', "config/x.yaml:1:5: a backslash in double quotes must be doubled"),
        ("a: 1\n---\nb: 2", "config/x.yaml:2:1: a second document starts here"),
        ("a: 1\nb: \x01", "config/x.yaml:2:4: a control character (U+0001) stands here"),
        ("a: {{ x }}.csv", "a value with {{ … }} needs quotes"),
    ],
)
def test_a_syntax_error_is_told_with_line_and_column_in_plain_words(text, told):
    assert told in complaint(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: 1\nb: 2\na: 3", "config/x.yaml:3: a: this key stands twice here, first on line 1"),
        ("l:\n  - {x: 1, x: 2}", "config/x.yaml:2: l[0].x: this key stands twice here, first on line 2"),
        ("a: !!python/name:os.system", "config/x.yaml:1: a: tags (!…) are not used in these files"),
        ("a: !!set {x}", "config/x.yaml:1: a: tags (!…) are not used in these files"),
        ("a: !!int abc", "config/x.yaml:1: a: tags (!…) are not used in these files"),
        ("? [a]\n: 1", "config/x.yaml:1: a key must be a text"),
        ("a: {<<: 5}", "only a mapping (*name) or a list of mappings can be merged"),
    ],
)
def test_what_can_be_read_but_not_meant_is_kept_as_a_problem(text, told):
    assert any(told in str(problem) for problem in read(text).problems)


def test_all_problems_of_a_file_are_found_at_once():
    assert len(read("a: 1\na: 2\nb: !x y\npassword: z").problems) == 3


@pytest.mark.parametrize(
    "text", ["[" * 60_000, "- " * 60_000, "{a: " * 60_000, "a: &a [*a]", "a: &a {b: *a}"]
)
def test_endless_depth_is_refused_before_it_can_end_the_process(text):
    assert f"nested deeper than {MAX_DEPTH} levels" in complaint(text)


def test_aliases_that_multiply_are_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]

    assert "more than 100000 values" in complaint("\n".join(lines))


def test_merge_keys_that_multiply_are_refused():
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 9)]

    assert "more than 100000 values" in complaint("\n".join(lines))


def test_a_file_that_is_too_large_is_refused(tmp_path: Path):
    file = tmp_path / "large.yaml"
    file.write_bytes(b"# " + b"x" * MAX_BYTES)

    with pytest.raises(BatchFileError, match="larger than 1,000,000 bytes"):
        read_yaml(file, shown="large.yaml")


@pytest.mark.parametrize("raw", [b"a: 1\nb: \xe9", "a: é".encode("utf-16")])
def test_another_encoding_than_utf_8_is_refused_with_its_line(tmp_path: Path, raw: bytes):
    file = tmp_path / "latin.yaml"
    file.write_bytes(raw)
    line = 2 if raw.startswith(b"a") else 1

    with pytest.raises(BatchFileError, match=f"latin.yaml:{line}: this is not UTF-8"):
        read_yaml(file, shown="latin.yaml")


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path):
    file = tmp_path / "windows.yaml"
    file.write_bytes("\ufeffname: Ümit\r\nflows: [a]\r\n".encode())

    assert read_yaml(file, shown="x").data == {"name": "Ümit", "flows": ["a"]}


def test_a_missing_file_is_told_as_such(tmp_path: Path):
    with pytest.raises(BatchFileError, match="there is no such file"):
        read_yaml(tmp_path / "no.yaml", shown="no.yaml")


def test_lines_are_found_through_lists_mappings_and_merges():
    text = """\
base: &base
  deep: 1
list:
  - {x: 1}
  -
    <<: *base
    y: 2
"""
    file = read(text)

    assert file.line(("base",)) == 1
    assert file.line(("list", 0, "x")) == 4
    assert file.line(("list", 1, "y")) == 7
    assert file.line(("list", 1, "deep")) == 2
    assert file.line(("list", 1, "missing")) == 6
    assert file.line(("list", 9)) == 3


SECRETS = {
    "key": "password: hunter2hunter2",
    "nested key": "a: [{b: {api_key: hunter2hunter2}}]",
    "key in a template": 'client_secret: "{{ hunter2hunter2 }}"',
    "header": "headers: {Authorization: hunter2hunter2}",
    "camel": "X-Api-Key: hunter2hunter2",
    "url": "url: https://robin:hunter2hunter2@example.com/in",
    "url without user": "url: redis://:hunter2hunter2@example.com/0",
    "pem": 'x: "-----BEGIN RSA PRIVATE KEY----- hunter2hunter2"',
    "aws": "x: AKIAIOSFODNN7HUNTER2",
    "github": "x: ghp_hunter2hunter2hunter2hunter2hunter2aa",
    "slack": "x: xoxb-123456789012-hunter2hunter2",
    "jwt": "x: eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.hunter2hunter2hunter2",
    "stripe": "x: sk_live_hunter2hunter2hunter2",
    "bearer": "x: Bearer hunter2hunter2hunter2hunter2",
    "pair": "x: Server=db;Password=hunter2hunter2;",
    "comment": "a: 1 # token=hunter2hunter2 until Friday",
    "azure": "x: AccountKey=hunter2hunter2hunter2hunter2==",
}


@pytest.mark.req("R219")
@pytest.mark.parametrize("text", SECRETS.values(), ids=SECRETS.keys())
def test_a_secret_is_refused_and_never_repeated(text):
    told = [str(problem) for problem in read(f"\n{text}\n").problems]

    assert len(told) == 1
    assert told[0].startswith("config/x.yaml:2")
    assert "Airflow connection" in told[0]
    assert "hunter2" not in told[0].lower()


def test_the_key_of_a_secret_value_is_named():
    told = str(read("a:\n  - {b: AKIAIOSFODNN7EXAMPLE}").problems[0])

    assert told.startswith("config/x.yaml:2: a[0].b: this looks like an AWS access key id")


@pytest.mark.req("R219")
@pytest.mark.parametrize(
    "text",
    [
        "connection: acme_sftp",
        "host_key: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBfzgYkqHjzZgYqTkHk2mJg0mTtO4qB8eB6jz8vV0xYp",
        "idempotency_key: '{{ delivery.id }}'",
        "public_key: keys/acme.asc",
        "id: 7927b2df-8bba-4d29-b9a2-b6e0beafe620",
        "sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "url: https://example.com:8443/inbound?batch={{ batch.id }}&key=leads",
        "url: sftp://robin@example.com/inbound",
        "body: 'Questions: call robin@acme.example: 09:00 to 17:00'",
        "field: password_reset_requested",
        "to: Token Count",
        "notes: 'The password is kept in the connection acme_sftp; ask Robin for a new token.'",
        "notes: Basic internationalization for everybody",
        "phone: '+12025550143'",
        "path: s3://bucket/a:b/c@d",
        "matches: '^[^@]+@[a-z]+[.]com$'",
        "lookup: {SKIA: Skiathos, ASIA: Asia, BASIC: Basic}",
        "name: skeleton_livery_ghost_tokens",
        "tokenizer: words",
        "secretary: Robin",
        "sort_key: email",
    ],
)
def test_ordinary_values_are_no_secrets(text):
    assert read(text).problems == ()
