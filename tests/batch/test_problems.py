from __future__ import annotations

import pytest

from leadferry.batch.problems import BatchFileError, Problem, did_you_mean, dotted


@pytest.mark.parametrize(
    ("path", "written"),
    [
        ((), ""),
        (("name",), "name"),
        (("destinations", 0, "type"), "destinations[0].type"),
        (("lookup", "New York"), "lookup['New York']"),
        (("fields", 2, "transform", 0, "lookup", "a.b"), "fields[2].transform[0].lookup['a.b']"),
    ],
)
def test_a_path_is_written_as_people_read_it(path, written):
    assert dotted(path) == written


def test_a_path_never_shows_a_secret():
    problem = Problem(file="x", line=1, path=("ghp_" + "a" * 36,), text="this key is not known here")

    assert "aaaa" not in str(problem)


def test_problems_are_told_once_and_by_line():
    first, second = Problem(file="x", line=2, text="b"), Problem(file="x", line=10, text="a")

    assert str(BatchFileError.of([second, first, second])) == "x:2: b\nx:10: a"


@pytest.mark.parametrize(
    ("word", "meant"),
    [("stfp", "; did you mean 'sftp'?"), ("SFTP", "; did you mean 'sftp'?"), ("fax", ""), (5, "")],
)
def test_only_a_close_word_is_suggested(word, meant):
    assert did_you_mean(word, ["folder", "sftp", "email"]) == meant
