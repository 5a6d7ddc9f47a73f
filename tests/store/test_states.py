"""The page on states draws exactly the moves that the code and the database allow."""

import re
from pathlib import Path

import pytest

from leadferry.states import MOVES, DeliveryState, DispatchState, RequestState, sources

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "states.md").read_text()
FIRST = {DeliveryState: {"claimed", "skipped"}, DispatchState: {"ready"}, RequestState: {"sending"}}
SECTIONS = {DeliveryState: "A delivery", DispatchState: "A dispatch", RequestState: "A request"}


def section(kind):
    (found,) = re.findall(rf"^## {SECTIONS[kind]}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return found


def test_every_kind_with_moves_has_its_diagram():
    assert set(MOVES) == set(SECTIONS)


@pytest.mark.parametrize("kind", SECTIONS)
def test_the_diagram_has_exactly_the_allowed_moves(kind):
    drawn = set(re.findall(r"^ +(\S+) --> (\S+)$", section(kind), re.MULTILINE))
    allowed = {(str(source), str(target)) for source, targets in MOVES[kind].items() for target in targets}
    assert drawn == allowed | {("[*]", first) for first in FIRST[kind]}


@pytest.mark.parametrize("kind", SECTIONS)
def test_the_table_explains_every_state(kind):
    explained = re.findall(r"^\| `(\w+)` \|", section(kind), re.MULTILINE)
    assert explained == [str(state) for state in kind]


def test_the_sources_of_a_state_are_the_states_it_may_be_reached_from():
    assert sources(DispatchState.SENDING) == [DispatchState.READY, DispatchState.FAILED]
    assert sources(DeliveryState.SKIPPED) == [DeliveryState.CLAIMED]
