from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from leadferry.batch.check import check

from .conftest import BATCH

TIDY = BATCH + "description: x\nselect: {rules: [{name: a, field: email, exists: true}]}\n"


def hints(folder, **options) -> list[str]:
    return [str(hint) for hint in check(folder.path, **options).hints]


def test_a_tidy_folder_has_neither_problems_nor_hints(folder):
    folder.batch(text=TIDY)

    report = check(folder.path)

    assert (report.checked, report.broken, report.problems, report.hints) == (["acme"], [], [], [])


@pytest.mark.req("F09")
def test_one_broken_of_five_is_one_broken(folder):
    for batch_id in ("a", "b", "c", "d"):
        folder.batch(batch_id, text=TIDY.replace("Acme, daily", f"Acme, {batch_id}"))
    folder.batch("e", text=TIDY.replace("type: folder", "type: foldr"))

    report = check(folder.path)

    assert [batch.id for batch in report.batches] == ["a", "b", "c", "d"]
    assert report.broken == ["e"]
    assert [(problem.file, problem.line) for problem in report.problems] == [("config/batches/e.yaml", 10)]


@pytest.mark.req("R018")
def test_a_name_that_breaks_the_naming_pattern_is_pointed_out(folder):
    folder.write("defaults.yaml", "naming: '^[A-Z][a-z]+, (daily|hourly)$'\n")
    folder.batch("good", text=TIDY)
    folder.batch("bad", text=TIDY.replace("Acme, daily", "acme stuff"))

    assert hints(folder) == [
        "config/batches/bad.yaml:1: name: 'acme stuff' does not fit the naming pattern ^[A-Z][a-z]+, (daily|hourly)$"
    ]
    assert check(folder.path).problems == []


@pytest.mark.parametrize("pattern", ["'['", "5", "[a]"])
def test_a_naming_pattern_that_is_none_is_a_problem(folder, pattern):
    folder.write("defaults.yaml", f"tags: []\nnaming: {pattern}\n")
    folder.batch(text=TIDY)

    report = check(folder.path)

    assert [str(problem) for problem in report.problems] == [
        "config/defaults.yaml:2: naming: must be a regular expression"
    ]
    assert report.broken == []


@pytest.mark.req("R018")
def test_names_that_differ_only_in_case_name_each_other(folder):
    folder.batch("one", text=TIDY)
    folder.batch("two", text=TIDY.replace("Acme, daily", "ACME,  Daily"))

    assert hints(folder) == [
        "config/batches/one.yaml:1: name: the name differs at most in case and spaces from that of config/batches/two.yaml",
        "config/batches/two.yaml:1: name: the name differs at most in case and spaces from that of config/batches/one.yaml",
    ]
    assert len(hints(folder, only="two")) == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BATCH + "description: x\n", "config/batches/acme.yaml:1: select.rules: no rules: every lead"),
        (
            TIDY.replace("description: x\n", ""),
            "config/batches/acme.yaml:1: description: a description would help",
        ),
        (
            TIDY.replace("{{ delivery.number }}", "leads"),
            "config/batches/acme.yaml:8: files[0].name: the same name every time",
        ),
    ],
)
def test_what_is_mostly_not_meant_is_pointed_out(folder, text, told):
    folder.batch(text=text)

    (hint,) = hints(folder)

    assert hint.startswith(told)


def test_a_recipient_without_contacts_is_pointed_out_in_its_file(folder):
    folder.write("recipients/acme.yaml", "name: Acme\n")
    folder.batch(text=TIDY)

    assert hints(folder) == [
        "config/recipients/acme.yaml:1: contacts: nobody to call at the recipient when a delivery fails"
    ]


def test_files_that_are_never_read_are_pointed_out(folder):
    folder.batch(text=TIDY)
    folder.write("batches/eu/paris.yaml", TIDY)
    folder.write("recipients/other.yml", "name: x\n")

    assert hints(folder) == [
        "config/batches/eu/paris.yaml:1: not read: only files directly in batches/ are",
        "config/recipients/other.yml:1: not read: rename it to other.yaml",
    ]


def test_a_recipient_that_no_batch_uses_is_checked_too(folder):
    folder.batch(text=TIDY)
    folder.write("recipients/idle.yaml", "nam: Idle\nbatch: {}\n")
    folder.write("recipients/worse.yaml", "name: [\n")

    told = [str(problem) for problem in check(folder.path).problems]

    assert told[0].startswith("config/recipients/idle.yaml:1: name: the required key 'name' is missing")
    assert "did you mean 'name'?" in told[1]
    assert told[2].startswith("config/recipients/worse.yaml:2:1: ")


def test_a_fault_of_a_shared_file_is_told_once(folder):
    folder.write("defaults.yaml", "priority: 0\n")
    folder.batch("one", text=TIDY)
    folder.batch("two", text=TIDY.replace("daily", "hourly"))

    report = check(folder.path)

    assert report.broken == ["one", "two"]
    assert [str(problem) for problem in report.problems] == [
        "config/defaults.yaml:1: priority: must be at least 1, is 0"
    ]


def test_one_batch_can_be_checked_alone(folder):
    folder.batch("fine", text=TIDY)
    folder.batch("broken", text="[")

    assert check(folder.path, only="fine").problems == []
    assert check(folder.path, only="broken").broken == ["broken"]


def test_a_batch_that_is_not_there_is_a_problem(folder):
    report = check(folder.path, only="nothing")

    assert report.broken == ["nothing"]
    assert "there is no such file" in str(report.problems[0])


# --- keys that files are encrypted with

ENCRYPTED = TIDY.replace("{type: csv}}", "{type: csv}, encrypt: {type: pgp, recipients: [acme]}}")


@pytest.fixture
def key_until(folder):
    """Put a public key that expires at a moment into `keys/`."""
    from pysequoia import Tsk

    def put(moment: datetime) -> None:
        key = Tsk.generate(user_id="Acme <leads@acme.example>")
        cert = key.extract_certificate().set_expiration(moment, key.certifier())
        (folder.path / "keys").mkdir(exist_ok=True)
        (folder.path / "keys" / "acme.asc").write_text(str(cert))

    return put


@pytest.mark.req("F19")
def test_a_key_that_expires_soon_is_announced_with_the_line_that_needs_it(folder, key_until):
    folder.batch(text=ENCRYPTED)
    now = datetime.now(UTC)
    key_until(now + timedelta(days=20))
    (hint,) = check(folder.path, now=now).hints
    assert (hint.file, hint.path) == ("config/batches/acme.yaml", ("files", 0, "encrypt"))
    assert "config/keys/acme.asc: the key expires on" in str(hint)
    assert check(folder.path, now=now - timedelta(days=60)).hints == []


@pytest.mark.req("F19")
def test_an_expired_key_is_a_problem_of_the_batch(folder, key_until):
    folder.batch(text=ENCRYPTED)
    now = datetime.now(UTC)
    key_until(now + timedelta(days=20))
    (problem,) = check(folder.path, now=now + timedelta(days=21)).problems
    assert "config/keys/acme.asc: the key expired on" in str(problem)


PLAIN = (
    "{id: out, type: ftp, connection: acme, security: none, allow_plaintext: true, plaintext_reason: a VPN}"
)


@pytest.mark.req("R135", "R218")
def test_an_unencrypted_transfer_is_pointed_out_at_every_check(folder):
    folder.batch(text=re.sub(r"\{id: \w+, type: folder.*\}", PLAIN, TIDY))

    (hint,) = hints(folder)

    assert "destinations[0].allow_plaintext: unencrypted" in hint
    assert check(folder.path).problems == []


@pytest.mark.req("R135", "R218")
@pytest.mark.parametrize("without", ["allow_plaintext: true", "plaintext_reason: a VPN"])
def test_an_unencrypted_transfer_without_permission_or_reason_is_a_problem(folder, without):
    plain = PLAIN.replace(f", {without}", "")
    folder.batch(text=re.sub(r"\{id: \w+, type: folder.*\}", plain, TIDY))

    (problem,) = check(folder.path).problems

    assert "plaintext_reason" in problem.text


@pytest.mark.req("R092")
def test_names_that_end_like_another_type_are_pointed_out(folder):
    files = TIDY.replace("format: {type: csv}", "format: {type: xlsx}")
    assert files != TIDY
    folder.batch(text=files)
    assert [one.partition(": ")[2] for one in hints(folder)] == [
        "files[0].name: the name ends in .csv, and the file is of type xlsx; write .xlsx"
    ]


@pytest.mark.parametrize("name", ["a_{{ delivery.number }}.csv.gz", "a_{{ delivery.number }}.txt"])
def test_endings_of_packings_and_those_that_mean_nothing_are_fine(folder, name):
    text = re.sub(r'name: "?[^,\n]*?\.csv"?', f'name: "{name}"', TIDY, count=1)
    assert name in text
    folder.batch(text=text.replace("format: {type: csv}", "format: {type: csv}, compress: gzip"))
    assert hints(folder) == []


def test_a_file_that_goes_nowhere_is_pointed_out(folder):
    spare = '  - {id: spare, name: "b_{{ delivery.number }}.csv", format: {type: csv}}\n'
    text = TIDY.replace("destinations:", f"{spare}destinations:").replace(
        "type: folder", "type: folder, files: [leads]"
    )
    assert text.count("files: [leads]") == 1
    folder.batch(text=text)
    (hint,) = hints(folder)
    assert "files[1]: no destination gets 'spare'" in hint


# --- schedules without a departure to come -----------------------------------------------------------------------

NOW = datetime(2026, 2, 2, 12, tzinfo=UTC)


def scheduled(schedule: str, more: str = "") -> str:
    return TIDY.replace('{at: ["09:00"], on: weekdays}', schedule) + more


@pytest.mark.parametrize("only", [None, "acme"])
def test_a_schedule_that_never_departs_is_a_problem_with_file_and_line(folder, only):
    folder.batch(text=scheduled('{at: ["09:00"], on: {month: 31st business day}}'))

    report = check(folder.path, only=only)

    told = "the schedule never departs, neither in the eight years before today nor after it"
    assert [str(one) for one in report.problems] == [f"config/batches/acme.yaml:4: schedule: {told}"]
    assert report.broken == ["acme"]


def test_a_schedule_that_never_departs_is_told_where_it_stands(folder):
    folder.write("defaults.yaml", 'tags: [x]\nschedule: {at: ["09:00"], on: {dates: [1999-01-04]}}\n')
    folder.batch(text=TIDY.replace('schedule: {at: ["09:00"], on: weekdays}\n', ""))

    (problem,) = check(folder.path).problems

    assert (problem.file, problem.line) == ("config/defaults.yaml", 2)


def test_a_disabled_batch_may_wait_for_its_schedule(folder):
    folder.batch(text=scheduled('{at: ["09:00"], on: {dates: [1999-01-04]}}', "enabled: false\n"))

    report = check(folder.path, now=NOW)

    assert (report.problems, report.hints) == ([], [])


@pytest.mark.parametrize("only", [None, "acme"])
def test_a_schedule_that_is_over_is_a_hint_with_its_last_departure(folder, only):
    folder.batch(text=scheduled('{at: ["09:00"], on: {dates: [2026-01-30]}, timezone: America/New_York}'))

    assert check(folder.path, only=only, now=NOW).problems == []
    assert hints(folder, only=only, now=NOW) == [
        (
            "config/batches/acme.yaml:4: schedule: the schedule is over since Fri 2026-01-30 09:00 EST (14:00 UTC);"
            " leads that still come wait until somebody triggers the DAG"
        )
    ]


@pytest.mark.parametrize(
    "schedule",
    [
        '{at: ["09:00"], on: {dates: [2026-01-30]}, on_asset: prices}',
        '{at: ["09:00"], on: {dates: [2026-02-03]}}',
    ],
)
def test_what_still_departs_is_not_over(folder, schedule):
    folder.batch(text=scheduled(schedule))
    assert hints(folder, now=NOW) == []


def test_a_batch_that_departs_early_is_not_over(folder):
    schedule = '{at: ["09:00"], on: {dates: [2026-01-30]}}'
    folder.batch(text=scheduled(schedule, "conditions: {depart_early: {leads: 5}}\n"))
    assert hints(folder, now=NOW) == []
