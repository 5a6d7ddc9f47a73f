"""The SQL of the page on the lead store runs on a real one, and answers what its heading asks."""

from __future__ import annotations

import re

import psycopg
import pytest

from batches import folder, make_batch, rows, trigger
from docs.pages import PROJECT, blocks, section, text_of
from leadferry.archive import Archive
from leadferry.delivery.deliver import deliver
from leadferry.delivery.extract import extract
from leadferry.delivery.render import render
from leadferry.delivery.settle import settle
from leadferry.store.database import Database

PAGE = "docs/reference/lead-store.md"
SQL = list(blocks("sql", PROJECT / PAGE))


def _sql(heading):
    """The statements below a heading, in their order."""
    text = section(PAGE, heading)
    return [block.text for block in SQL if block.text in text]


@pytest.fixture
def run(store_url):
    """Run a statement as any client would that was told the search path; return its rows."""

    def run(statement, *, role=None, search_path="leadferry"):
        with psycopg.connect(store_url) as connection:
            if search_path:
                connection.execute(f"SET search_path TO {search_path}")
            if role:
                connection.execute(f"SET ROLE {role}")
            done = connection.execute(statement)
            return done.fetchall() if done.description else done.rowcount

    return run


@pytest.fixture
def delivered(run, store_url, tmp_path):
    """The leads of the page, and one delivery of them: one lead is withheld, and a later one waits."""
    database = Database(store_url)
    put_in = [run(statement) for statement in _sql("Put leads in")]
    batch = make_batch(
        id="acme_home",
        flows=["home_insurance"],
        select={"rules": [{"name": "served_states", "field": "state", "in": ["CA", "TX"]}]},
        destinations=[folder(tmp_path / "inbox")],
    )
    claimed = extract(database, batch, trigger(actor="kim"))
    archive = Archive(str(tmp_path / "archive"))
    render(database, archive, claimed.delivery_id)
    deliver(database, archive, claimed.delivery_id, "drop")
    settle(database, archive, claimed.delivery_id)
    return put_in


def test_leads_are_put_in_once(delivered, run):
    again = run(_sql("Put leads in")[0])

    assert delivered == [1, 2]
    assert again == 0
    assert run("SELECT count(*) FROM lead") == [(3,)]


@pytest.mark.parametrize("statement", _sql("Put leads in"))
def test_a_client_that_knows_nothing_of_the_schema_can_put_leads_in(run, statement):
    assert run(statement, search_path=None) > 0


def test_a_role_for_the_form_system_can_put_leads_in_and_nothing_else(run):
    run(_sql("A role that may do nothing else")[0].replace("CREATE ROLE form_system;", _role("form_system")))

    assert [run(statement, role="form_system") for statement in _sql("Put leads in")] == [1, 2]
    for forbidden in ("SELECT fields FROM lead", "SELECT * FROM delivery", "UPDATE lead SET fields = '{}'"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            run(forbidden, role="form_system")


def test_a_role_for_reports_can_ask_and_change_nothing(delivered, run):
    run(_sql("A role that may only read")[0].replace("CREATE ROLE reports;", _role("reports")))

    assert run("SELECT count(*) FROM delivery_lead", role="reports") == [(3,)]
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        run("DELETE FROM withheld", role="reports")


def _role(name):
    """Roles belong to the server, which the tests share."""
    return (
        f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{name}')"
        f" THEN CREATE ROLE {name}; END IF; END $$;"
    )


QUESTIONS = {
    "What waits, and since when?": 0,
    "What became of this lead?": 1,
    "How many leads did a batch deliver, day by day?": 1,
    "Why were leads withheld?": 1,
    "What needs a person?": 0,
    "What is the proof that a file arrived?": 1,
    "What failed lately, where and why?": 0,
    "With which configuration was this delivered?": 1,
    "Who did what?": 1,
}


def test_every_question_is_answered(delivered, run):
    answers = {
        heading: {len(run(_now_and_here(statement))) for statement in _sql(heading)} for heading in QUESTIONS
    }

    assert answers == {heading: {found} for heading, found in QUESTIONS.items()}


def _now_and_here(statement):
    """The delivery of the fixture departs at a fixed moment, so "lately" is widened to all time."""
    return re.sub(r"now\(\) - interval '[^']*'", "'-infinity'::timestamptz", statement)


def test_answers_are_right(delivered, run):
    (story,) = run(_sql("What became of this lead?")[0])
    (withheld,) = run(_now_and_here(_sql("Why were leads withheld?")[0]))
    (proof,) = run(_sql("What is the proof that a file arrived?")[0])
    (day,) = run(_sql("How many leads did a batch deliver, day by day?")[0])

    assert story[1:5] == ("acme_home", 1, "delivered", "included")
    assert withheld == ("served_states", 1)
    assert proof[4] == "confirmed"
    assert proof[5].endswith("acme_home_1.csv")
    assert day[1] == 2


def test_what_waits_is_told_also_before_it_is_in_a_queue(delivered, run):
    run(_sql("Put leads in")[1])
    (waiting,) = (run(statement) for statement in _sql("What waits, and since when?"))

    assert [told[:2] for told in waiting] == [("acme_home", 2)]
    assert run("SELECT count(*) FROM pending") == [(0,)]


def test_every_statement_of_the_page_is_run_by_a_test():
    asked = [*QUESTIONS, "Put leads in", "A role that may do nothing else", "A role that may only read"]

    assert {block.text for block in SQL} == {statement for heading in asked for statement in _sql(heading)}


def test_the_tables_and_views_are_those_of_the_store(database):
    told = set(re.findall(r"^\| `(\w+)` \|", text_of(PAGE), re.MULTILINE))
    there = rows(
        database,
        "SELECT table_name FROM information_schema.tables"
        " WHERE table_schema = 'leadferry' AND table_name <> 'alembic_version'",
    )

    assert told == {name for (name,) in there}
