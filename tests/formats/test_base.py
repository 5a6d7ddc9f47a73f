"""What formats share: dotted names as a tree, counting of changed and refused values."""

import pytest

from contracts.format_contract import context, frame
from leadferry.errors import RenderError
from leadferry.formats.base import Tally, prepared, tree


def test_dots_make_levels_in_the_order_of_first_appearance():
    assert tree({"1": "b.y", "2": "a", "3": "b.x.z"}) == {"b": {"y": "1", "x": {"z": "3"}}, "a": "2"}


@pytest.mark.parametrize(
    ("paths", "told"),
    [
        ({"1": "a", "2": "a.b"}, "column '2' would stand inside column '1'"),
        ({"1": "a.b", "2": "a"}, "column '2' has the same place"),
        ({"1": "a", "2": "a"}, "column '2' has the same place"),
        ({"1": "a..b"}, "column '1' has an empty part"),
        ({"1": ""}, "column '1' has an empty part"),
    ],
)
def test_names_that_cannot_both_have_their_place_are_refused(paths, told):
    with pytest.raises(ValueError) as refused:
        tree(paths)
    assert told in str(refused.value)


def test_changes_are_added_up_over_frames_and_told_once_per_column():
    told = []
    tally = Tally(context(frame(a=[]), report=told.append))
    tally.changed("b", 2, "cut")
    tally.changed("a", 1, "cut")
    tally.changed("b", 3, "cut")
    assert told == []
    tally.close()
    assert [str(change) for change in told] == ["5 values of column 'b': cut", "1 value of column 'a': cut"]


def test_after_a_refused_value_the_rest_is_counted_but_not_written():
    def refuse(one, tally):
        tally.refused("a", one.height, "are wrong", hint="Do right")
        return one

    yielded = []
    with pytest.raises(RenderError) as failed:
        yielded.extend(prepared([frame(a=["1"]), frame(a=["2", "3"])], _of(3), refuse))
    assert yielded == []
    assert str(failed.value) == "3 values of column 'a' are wrong. Do right"


def _of(rows):
    return context(frame(a=["1"] * rows))


def test_there_is_always_a_first_frame():
    assert [one.shape for one in prepared([], _of(0))] == [(0, 1)]
    assert [one.shape for one in prepared([frame(a=[])], _of(0))] == [(0, 1)]
    assert [
        one.height for one in prepared([frame(a=[]), frame(a=[]), frame(a=["1"]), frame(a=[])], _of(1))
    ] == [0, 1]
