"""A million leads take no more memory than a few."""

import json
import subprocess
import sys

import pytest
from sqlalchemy import text

from batches import make_batch

CEILING_MB = 300

RENDER = """
import json, sys
from datetime import UTC, datetime
from leadferry.archive import Archive
from leadferry.batch.model import Batch
from leadferry.delivery.extract import Trigger, extract
from leadferry.delivery.render import render
from leadferry.store.database import Database

store, archive, batch = sys.argv[1:]
database = Database(store)
claim = extract(database, Batch.model_validate(json.loads(batch)), Trigger(run_id="r", departs_at=datetime.now(UTC)))
(file,) = render(database, Archive(archive), claim.delivery_id)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"included": claim.included, "rows": file.rows, "size": file.size, "mb": int(peak.split()[1]) / 1024}))
"""


@pytest.mark.req("R236", "F58", "C19")
@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc: needs Linux")
def test_a_million_leads_are_rendered_under_a_fixed_ceiling(database, store_url, tmp_path):
    with database.transaction() as connection:
        connection.execute(
            text(
                "INSERT INTO lead (flow, received_at, fields)"
                " SELECT 'auto', timestamptz '2026-01-01' + n * interval '1 second', jsonb_build_object("
                " 'email', 'Lead' || n || '@Example.com', 'name', '  some body ' || n, 'n', n)"
                " FROM generate_series(1, 1000000) n"
            )
        )
    fields = [
        {"to": "Email", "from": "email", "transform": ["trim", "lower"]},
        {"to": "Name", "from": "name", "transform": ["trim", "title"]},
        {"to": "N", "from": "n"},
        {"to": "Received", "from": "received_at", "transform": [{"date": "%m/%d/%Y"}]},
    ]
    batch = make_batch(fields=fields).model_dump_json()
    command = [sys.executable, "-c", RENDER, store_url, str(tmp_path / "archive"), batch]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert (told["included"], told["rows"]) == (1_000_000, 1_000_000)
    assert told["size"] > 50_000_000
    assert told["mb"] < CEILING_MB
