"""Mailing lists, roles, and the domains that leads may be mailed to."""

from __future__ import annotations

import pytest

from leadferry.batch.check import check
from leadferry.batch.model import Batch

BATCH = """\
name: Acme, daily
recipient: acme
flows: [auto]
schedule: manual
fields: [{to: Email, from: email}]
files: [{name: "{{ delivery.number }}.csv", format: {type: csv}}]
destinations:
  - id: mail
    type: email
    subject: Leads
"""


@pytest.fixture
def config(folder):
    folder.write("lists/buyers.yaml", "description: Who buys\nmembers: [a@acme.example, b@acme.example]\n")
    folder.write("lists/more.yaml", "members: [B@acme.example, c@other.example]\n")
    folder.write(
        "recipients/acme.yaml",
        """\
        name: Acme
        contacts:
          - {name: Robin Vale, role: data desk, email: robin@acme.example}
          - {name: Kim Ode, role: data desk, email: kim@acme.example}
          - {name: Night desk, role: on call}
        """,
    )
    return folder


def addressees(config):
    return config.load().destination("mail").addressees()


@pytest.mark.req("R117")
def test_lists_and_roles_become_their_members_each_once(config):
    config.batch(
        text=BATCH
        + "    to: [b@acme.example, {list: buyers}, {list: more}, {role: data desk}]\n    bcc: [{list: more}]\n"
    )
    assert addressees(config) == [
        "b@acme.example",
        "a@acme.example",
        "c@other.example",
        "robin@acme.example",
        "kim@acme.example",
    ]


@pytest.mark.req("R117")
def test_a_change_of_the_list_needs_no_edit_of_the_batch_and_the_frozen_batch_keeps_its_members(config):
    config.batch(text=BATCH + "    to: [{list: buyers}]\n")
    before = config.load()
    config.write("lists/buyers.yaml", "members: [new@acme.example]\n")
    assert addressees(config) == ["new@acme.example"]
    frozen = Batch.model_validate(before.model_dump(mode="json", by_alias=True))
    assert frozen.destination("mail").addressees() == ["a@acme.example", "b@acme.example"]
    assert frozen == before


def test_a_recipient_with_texts_of_their_own_keeps_them_beside_a_list_with_them_on_it(config):
    config.batch(text=BATCH + "    to: [{list: buyers}, {address: A@acme.example, subject: Yours}]\n")
    mail = config.load().destination("mail")
    assert mail.addressees() == ["b@acme.example", "A@acme.example"]
    assert mail.texts("A@acme.example").subject == "Yours"


@pytest.mark.req("R117")
@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{list: byers}", "there is no config/lists/byers.yaml; known: buyers, more; did you mean 'buyers'?"),
        ("{role: on call}", "no contact of recipient 'acme' with a mail address has the role 'on call'"),
        ("{role: data dask}", "did you mean 'data desk'?"),
    ],
)
def test_a_group_that_is_none_is_told_with_its_line(config, entry, told):
    config.batch(text=f"{BATCH}    to:\n      - x@acme.example\n      - {entry}\n")
    (complaint,) = config.complaints()
    assert complaint.startswith("config/batches/acme.yaml:13: destinations[0].to[1]: ")
    assert told in complaint


def test_a_bad_address_in_a_list_is_told_in_the_list(config):
    config.write("lists/buyers.yaml", "members:\n  - a@acme.example\n  - nobody\n")
    config.batch(text=BATCH + "    to: [{list: buyers}]\n")
    (complaint,) = config.complaints()
    assert complaint.startswith("config/lists/buyers.yaml:3: members[1]: must be one mail address")


def test_a_list_that_no_batch_names_is_checked_too(config):
    config.batch(text=BATCH + "    to: [a@acme.example]\n")
    config.write("lists/old.yaml", "member: []\n")
    assert {problem.file for problem in check(config.path).problems} == {"config/lists/old.yaml"}


@pytest.mark.req("F38")
def test_a_domain_that_is_not_allowed_is_refused_wherever_it_stands(config):
    config.write("defaults.yaml", "mail_domains: [acme.example, '*.partner.example']\n")
    config.batch(
        text=BATCH
        + "    mode: together\n    to: [a@ACME.example, b@eu.partner.example, c@sub.acme.example]\n"
        + "    cc: [{list: more}]\n    bcc: [d@partner.example]\n"
    )
    told = [line.partition(": no mail may go to ")[::2] for line in config.complaints()]
    assert [(where.split(": ")[1], domain.split(";")[0]) for where, domain in told] == [
        ("destinations[0].to[2]", "sub.acme.example"),
        ("destinations[0].cc[0]", "other.example"),
        ("destinations[0].bcc[0]", "partner.example"),
    ]


@pytest.mark.req("F38")
def test_a_batch_cannot_widen_the_domains(config):
    config.write("defaults.yaml", "mail_domains: [acme.example]\n")
    config.batch(text=BATCH + "    to: [a@acme.example]\nmail_domains: [evil.example]\n")
    (complaint,) = config.complaints()
    assert "mail_domains: this key is not known here" in complaint


@pytest.mark.parametrize("value", ["acme.example", "[a@acme.example]", "[1]"])
def test_domains_that_are_none_are_a_problem(config, value):
    config.write("defaults.yaml", f"tags: []\nmail_domains: {value}\n")
    config.batch(text=BATCH + "    to: [a@acme.example]\n")
    (complaint,) = config.complaints()
    assert complaint.startswith("config/defaults.yaml:2: mail_domains: must be a list of domains")
