"""What Airflow gets to hear when a task fails: our sentences, the decision about a retry, never a lead."""

import logging
import traceback
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import psycopg
import pytest
import yaml
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    TaskDeferred,
)

import leadferry.errors as tree
from batches import add_leads
from leadferry import tasks
from leadferry.batch.load import load_batch
from leadferry.delivery.extract import Trigger
from leadferry.delivery.extract import extract as claim_leads
from leadferry.errors import LeadferryError
from leadferry.tasks import WaitUntilReady, airflow_errors

SECRET = "jane@example.com"


def kinds(of: type = LeadferryError) -> list[type[LeadferryError]]:
    return [
        of,
        *(one for child in of.__subclasses__() for one in kinds(child) if one.__module__ == tree.__name__),
    ]


def heard(error: BaseException) -> BaseException:
    """What Airflow hears of an exception that is raised inside a task."""
    with pytest.raises(BaseException) as told, airflow_errors():
        raise error
    return told.value


def shown(error: BaseException) -> str:
    """All that a log or a mail would show of an exception."""
    return "".join(traceback.format_exception(error))


@pytest.mark.req("R200")
@pytest.mark.parametrize("kind", kinds())
def test_only_what_may_succeed_later_is_retried_and_its_code_and_hint_are_told(kind):
    told = heard(kind("The server said no", hint="Call them"))

    assert type(told) is (AirflowException if kind.retry else AirflowFailException)
    assert str(told) == f"{kind.code}: The server said no. Call them"


@pytest.mark.parametrize("kind", [tree.StoreUnavailableError, tree.AuthenticationError])
def test_the_cause_of_our_own_error_stays_untold(kind):
    def task():
        try:
            {}[SECRET]
        except KeyError as error:
            raise kind("What we say") from error

    with pytest.raises(AirflowException) as told, airflow_errors():
        task()

    assert SECRET not in shown(told.value)


@pytest.mark.req("F11", "R228")
@pytest.mark.parametrize(
    "error",
    [
        KeyError(SECRET),
        ValueError(f"could not convert string to float: {SECRET!r}"),
        UnicodeEncodeError("ascii", SECRET + "é", 16, 17, SECRET),
        psycopg.errors.InvalidTextRepresentation(f'invalid input syntax for type integer: "{SECRET}"'),
        type("OddError", (Exception,), {})(SECRET),
        ExceptionGroup(SECRET, [ValueError(SECRET)]),
        AirflowException(SECRET),
    ],
    ids=lambda error: type(error).__name__,
)
def test_of_a_foreign_exception_only_kind_and_place_are_told_and_it_is_tried_again(error):
    told = heard(error)

    assert type(told) is AirflowException
    assert type(error).__name__ in str(told)
    assert "test_tasks.py:" in str(told)
    assert "in heard" in str(told)
    assert SECRET not in shown(told)


def test_a_lead_in_an_exceptions_notes_is_untold(caplog):
    error = ValueError("x")
    error.add_note(SECRET)

    with caplog.at_level(logging.DEBUG):
        told = heard(error)

    assert SECRET not in shown(told) + caplog.text


@pytest.mark.parametrize("error", [AirflowSkipException("nothing waits"), AirflowFailException("held")])
def test_what_we_tell_airflow_on_purpose_passes(error):
    assert heard(error) is error


@pytest.mark.parametrize("error", [AirflowTaskTimeout("after 1 h"), KeyboardInterrupt(), SystemExit(1)])
def test_time_outs_and_requests_to_stop_pass(error):
    assert heard(error) is error


def test_a_task_that_ends_well_is_left_alone():
    with airflow_errors():
        delay = timedelta(seconds=1)
    assert delay


# --- the task that waits

NINE = datetime(2026, 1, 30, 9, tzinfo=UTC)


@pytest.fixture
def scheduled(monkeypatch):
    """The context of a run of the timetable, and what its task shows in Airflow."""
    shown = {}
    run = SimpleNamespace(
        dag_id="batch_acme",
        run_id="scheduled__nine",
        run_type="scheduled",
        run_after=NINE,
        data_interval_end=NINE,
        start_date=NINE,
    )
    ti = SimpleNamespace(xcom_push=lambda *, key, value: shown.update({key: value}))
    context = {"dag_run": run, "params": {}, "ti": ti}
    monkeypatch.setattr(tasks, "get_current_context", lambda: context)
    return SimpleNamespace(context=context, shown=shown)


@pytest.mark.req("R046")
def test_a_run_that_took_its_leads_waits_no_more_when_it_is_cleared(
    scheduled, database, store_url, tmp_path, monkeypatch
):
    (tmp_path / "recipients").mkdir()
    (tmp_path / "recipients" / "acme.yaml").write_text("name: Acme")
    (tmp_path / "batches").mkdir()
    keys = {
        "name": "Acme",
        "recipient": "acme",
        "flows": ["auto"],
        "schedule": {"at": ["09:00"]},
        "conditions": {"ready": {"file": {"path": str(tmp_path / "ready.flag")}}},
        "fields": [{"to": "Email", "from": "email"}],
        "files": [{"name": "leads.csv", "format": {"type": "csv"}}],
        "destinations": [{"id": "drop", "type": "folder", "path": str(tmp_path / "inbox")}],
    }
    (tmp_path / "batches" / "acme.yaml").write_text(yaml.safe_dump(keys))
    monkeypatch.setenv("LEADFERRY_CONFIG", str(tmp_path))
    monkeypatch.setenv("AIRFLOW_CONN_LEADFERRY", store_url)
    add_leads(database, 2)
    wait = WaitUntilReady(task_id="wait", batch_id="acme")
    with pytest.raises(TaskDeferred):
        wait.execute(scheduled.context)
    assert "is awaited" in scheduled.shown["reason"]

    claim_leads(
        database,
        load_batch("acme", config=tmp_path),
        Trigger(run_id=scheduled.context["dag_run"].run_id, departs_at=NINE),
    )
    wait.execute(scheduled.context)


def test_a_task_that_waited_does_not_say_for_ever_that_it_does(scheduled):
    WaitUntilReady(task_id="wait", batch_id="acme").resume(scheduled.context, {"ready": True, "error": None})
    assert scheduled.shown == {"reason": "what it waited for came"}
