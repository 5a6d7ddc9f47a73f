"""What Airflow gets to hear when a task fails: our sentences, the decision about a retry, never a lead."""

import logging
import traceback
from datetime import timedelta

import psycopg
import pytest
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
)

import leadferry.errors as tree
from leadferry.errors import LeadferryError
from leadferry.tasks import airflow_errors

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
