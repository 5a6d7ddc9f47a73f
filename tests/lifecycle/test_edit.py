"""Changing batch files: comments stay, and nothing is written that would not load."""

import pytest

from leadferry.errors import BatchConfigError
from leadferry.lifecycle import edit

TEXT = """\
# For Acme; ask Robin before changing the columns.
name: Acme, daily   # shown in Airflow
flows: [auto]
schedule: {at: ["09:00"], on: weekdays}

retry:
  attempts: 5  # their server is slow
fields:
  - {to: Email, from: email}
  - to: "Phone"
    from: phone
"""


def test_setting_a_key_changes_its_line_and_no_other():
    after = edit.changed(TEXT, {"retry.attempts": 3})
    assert after == TEXT.replace("attempts: 5  # their", "attempts: 3  # their")


def test_a_key_that_is_not_there_is_added_with_what_holds_it():
    assert edit.changed("name: A\n", {"notify.failure": ["ops@example.com"]}) == (
        "name: A\nnotify:\n  failure:\n    - ops@example.com\n"
    )


def test_a_place_in_a_list_is_a_number():
    assert '  - to: "Mobile"\n    from: phone\n' in edit.changed(TEXT, {"fields.1.to": "Mobile"})


def test_none_removes_a_key_and_removing_what_is_not_there_changes_nothing():
    assert "attempts" not in edit.changed(TEXT, {"retry.attempts": None})
    assert edit.changed(TEXT, {"notify.failure": None}) == TEXT
    assert edit.changed(TEXT, {"nothing": None}) == TEXT


@pytest.mark.parametrize("path", ["name.first", "fields.7.to", "fields.x"])
def test_a_path_through_a_value_is_refused(path):
    with pytest.raises(BatchConfigError, match="nothing under"):
        edit.changed(TEXT, {path: 1})


def test_a_long_line_stays_one_line():
    long = f"name: A\nnotes: {'x ' * 500}end\n"
    assert edit.changed(long, {"name": "B"}) == long.replace("name: A", "name: B")


def test_the_file_is_replaced_in_one_step_and_nothing_is_left_beside_it(tmp_path):
    edit.write(tmp_path, "acme", "name: A\n")
    edit.write(tmp_path, "acme", "name: B\n")
    assert [(file.name, file.read_text()) for file in (tmp_path / "batches").iterdir()] == [
        ("acme.yaml", "name: B\n")
    ]
