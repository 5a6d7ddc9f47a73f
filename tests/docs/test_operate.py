"""What the operator's page promises about failed, partial and held deliveries."""

from __future__ import annotations

import json
import re
import shlex

import pytest
from typer.testing import CliRunner

from batches import add_leads, folder, make_batch, scalars, trigger, waiting
from docs.pages import PROJECT, blocks, section, text_of
from leadferry.archive import Archive
from leadferry.cli import app
from leadferry.delivery.deliver import deliver
from leadferry.delivery.extract import extract
from leadferry.delivery.params import DeliverNow
from leadferry.delivery.render import render
from leadferry.delivery.settle import settle
from leadferry.doctor.finding import Stage
from leadferry.errors import NoSuchPathError, OutcomeUnknownError, StoreError
from leadferry.states import DeliveryState, DispatchState
from leadferry.store import ledger, sending

PAGE = "docs/how-to/operate.md"


@pytest.fixture
def archive(tmp_path):
    return Archive(str(tmp_path / "archive"))


def _rendered(database, archive, *destinations):
    batch = make_batch(destinations=list(destinations))
    claimed = extract(database, batch, trigger())
    render(database, archive, claimed.delivery_id)
    return claimed.delivery_id


def _fail(database, archive, delivery_id, destination):
    with pytest.raises(NoSuchPathError):
        deliver(database, archive, delivery_id, destination)


def test_every_state_of_a_delivery_stands_in_the_table():
    told = re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \|", section(PAGE, "What state is the delivery in?"), re.MULTILINE
    )

    assert {state for cell in told for state in re.findall(r"\w+", cell)} == set(DeliveryState)


def test_the_table_of_the_form_is_the_form():
    told = re.findall(r"^\| `(\w+)` \|", section(PAGE, "Deliver now"), re.MULTILINE)

    assert told == list(DeliverNow.model_fields)


def test_the_conf_of_the_example_is_accepted():
    (conf,) = re.findall(r"--conf '(.*)'", text_of(PAGE))

    assert DeliverNow.parse(json.loads(conf)).limit == 100


def test_failed_leads_are_in_the_queue_and_a_cleared_deliver_task_refuses(database, archive, tmp_path):
    leads = add_leads(database, 3)
    delivery_id = _rendered(database, archive, folder(tmp_path / "missing", create=False))
    _fail(database, archive, delivery_id, "drop")
    settlement = settle(database, archive, delivery_id)
    (tmp_path / "missing").mkdir()

    assert (settlement.state, settlement.reason) == (DeliveryState.FAILED, "drop: no_such_path")
    assert waiting(database) == leads
    with pytest.raises(StoreError, match="is failed and can go no further"):
        deliver(database, archive, delivery_id, "drop")


def test_clearing_the_whole_run_of_a_failed_delivery_takes_the_leads_anew(database, archive, tmp_path):
    add_leads(database, 3)
    first = _rendered(database, archive, folder(tmp_path / "missing", create=False))
    _fail(database, archive, first, "drop")
    settle(database, archive, first)
    (tmp_path / "missing").mkdir()

    second = _rendered(database, archive, folder(tmp_path / "missing", create=False))

    assert second != first
    assert deliver(database, archive, second, "drop") == 1
    assert settle(database, archive, second).state is DeliveryState.DELIVERED


def test_partial_becomes_delivered_when_the_red_task_is_cleared(database, archive, tmp_path):
    add_leads(database, 3)
    delivery_id = _rendered(
        database, archive, folder(tmp_path / "a", id="a"), folder(tmp_path / "b", id="b", create=False)
    )
    deliver(database, archive, delivery_id, "a")
    _fail(database, archive, delivery_id, "b")
    assert settle(database, archive, delivery_id).state is DeliveryState.PARTIAL
    (tmp_path / "b").mkdir()

    deliver(database, archive, delivery_id, "b")

    assert settle(database, archive, delivery_id).state is DeliveryState.DELIVERED
    assert [path.name for path in (tmp_path / "a").iterdir()] == [
        path.name for path in (tmp_path / "b").iterdir()
    ]


@pytest.fixture
def held(database, store_url, archive, tmp_path, monkeypatch):
    """The dispatch of a delivery that is held: the connection went before the answer came."""
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)
    add_leads(database, 3)
    delivery_id = _rendered(database, archive, folder(tmp_path / "a"))
    (dispatch,) = sending.dispatches_to(database, delivery_id)
    number = sending.begin_sending(database, [dispatch], lease=make_batch().claim_lease)
    error = OutcomeUnknownError("The answer was lost")
    sending.end_sending(database, [dispatch], DispatchState.UNKNOWN, number=number, error=error)
    assert settle(database, archive, delivery_id).state is DeliveryState.HELD
    return dispatch.id


@pytest.mark.parametrize(
    ("word", "state", "back"), [("confirm", DeliveryState.DELIVERED, 0), ("fail", DeliveryState.FAILED, 3)]
)
def test_a_held_delivery_is_settled_by_the_commands_of_the_page(database, held, word, state, back):
    lines = [line for block in blocks("bash", PROJECT / PAGE) for line in block.text.splitlines()]
    (line,) = [line for line in lines if line.startswith(f"leadferry dispatch {word} ")]
    typed = [*shlex.split(line)[1:3], str(held), *shlex.split(line)[4:]]

    done = CliRunner().invoke(app, typed)

    (delivery_id,) = scalars(database, "SELECT delivery_id FROM dispatch WHERE id = :id", id=held)
    assert done.exit_code == 0
    assert ledger.get_delivery(database, delivery_id).state is state
    assert len(waiting(database)) == back


def test_every_stage_of_the_doctor_stands_in_its_section():
    told = section(PAGE, "Start with the doctor")

    assert {stage for stage in Stage if f"`{stage}`" not in told} == {Stage.SENT}
