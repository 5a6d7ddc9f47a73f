"""Folders that are templates, made or required, through whole deliveries into a real folder and a real SFTP server."""

import pytest

from batches import add_leads, folder, make_batch
from ferry import SFTP
from leadferry.states import DeliveryState

BY_MONTH = "{{ delivery.year }}/{{ delivery.month }}"


@pytest.fixture
def destination(tmp_path, request):
    """A destination whose folder has the year and the month in it, and where that is."""

    def destination(kind, *, create):
        if kind == "folder":
            root = tmp_path / "share"
            return folder(f"{root}/{BY_MONTH}", create=create), root
        server = request.getfixturevalue("buyer_sftp")
        return {**SFTP, "directory": f"/{BY_MONTH}", "create_directory": create}, server.root

    return destination


@pytest.mark.req("R095")
@pytest.mark.parametrize("kind", ["folder", "sftp"])
def test_a_folder_for_year_and_month_is_made(ferry, destination, kind):
    add_leads(ferry.database, 2)
    where, root = destination(kind, create=True)
    assert ferry.carry(make_batch(destinations=[where])).state is DeliveryState.DELIVERED
    assert (root / "2026/01/acme_1.csv").is_file()


@pytest.mark.req("R095")
@pytest.mark.parametrize("kind", ["folder", "sftp"])
def test_a_folder_that_must_be_there_is_required(ferry, destination, kind):
    add_leads(ferry.database, 2)
    where, root = destination(kind, create=False)
    claimed = ferry.rendered(make_batch(destinations=[where]))
    assert ferry.try_to_deliver(claimed, where["id"]).code == "no_such_path"
    assert not (root / "2026").exists()
    (root / "2026/01").mkdir(parents=True)
    assert ferry.deliver(claimed, where["id"]) == 1
    assert (root / "2026/01/acme_1.csv").is_file()


BAD_NAMES = {
    "../../etc/passwd": "_.._etc_passwd.csv",
    "..\\..\\boot": "_.._boot.csv",
    "/absolute": "_absolute.csv",
    ".hidden": "hidden.csv",
    "--rf": "rf.csv",
    'a<b>|"c"?*': "a_b___c___.csv",
    "con": "_con.csv",
    "LPT1": "_LPT1.csv",
    "two  spaces\u202e": "two spaces.csv",
    "e\u0301te\u0301": "\u00e9t\u00e9.csv",
    "\u65e5\u672c": "\u65e5\u672c.csv",
    "x" * 200: "x" * 196 + ".csv",
    "\u00e9" * 150: "\u00e9" * 98 + ".csv",
}


@pytest.mark.req("F53")
@pytest.mark.parametrize("kind", ["folder", "sftp"])
def test_whatever_a_batch_is_called_its_file_arrives_under_one_safe_name_in_its_folder(
    ferry, destination, kind
):
    where, root = destination(kind, create=True)
    for number, (name, safe) in enumerate(BAD_NAMES.items()):
        add_leads(ferry.database)
        file = {"name": "{{ batch.name }}.csv", "format": {"type": "csv"}}
        settled = ferry.carry(
            make_batch(id=f"acme_{number}", name=name, files=[file], destinations=[where]), f"run-{number}"
        )
        assert settled.state is DeliveryState.DELIVERED
        assert (root / "2026/01" / safe).is_file()
    assert len([one for one in root.rglob("*") if one.is_file()]) == len(BAD_NAMES)
    assert not (root.parent / "passwd").exists()


@pytest.mark.req("F53")
@pytest.mark.parametrize(
    "name", ["{{ 'Leads' if file.part == 1 else 'leads' }}.csv", "{{ file.part - file.part }}.csv"]
)
def test_two_parts_whose_names_differ_only_in_case_are_never_sent(ferry, tmp_path, name):
    """Some systems take them for one, and the second would conflict with the first, or replace it."""
    add_leads(ferry.database, 2)
    file = {"name": name, "format": {"type": "csv"}, "split": {"rows": 1}}
    claimed = ferry.extract(make_batch(files=[file], destinations=[folder(tmp_path / "share")]))
    with pytest.raises(Exception, match="would have the same name"):
        ferry.render(claimed)
    assert not (tmp_path / "share").exists()
