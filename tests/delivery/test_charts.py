"""Pictures of counts: what is counted, and that the same counts give the same picture."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from batches import add_leads, claim
from leadferry.delivery.charts import OTHER, Bar, bars, picture
from leadferry.store.ledger import get_delivery


@pytest.fixture
def delivery(database):
    for state, count in (("CA", 5), (" TX ", 3), ("TX", 1), ("", 1), ("NY", 2), ("one@example.com", 1)):
        add_leads(database, count, fields={"state": state})
    return get_delivery(database, claim(database).delivery_id)


@pytest.mark.req("R116")
def test_values_are_counted_and_what_one_lead_alone_has_is_never_shown(database, delivery):
    assert bars(database, delivery, field="state", top=10) == [
        Bar("CA", 5),
        Bar("TX", 4),
        Bar("NY", 2),
        Bar(OTHER, 2),
    ]


def test_what_is_beyond_the_top_is_other(database, delivery):
    assert bars(database, delivery, field="state", top=1) == [Bar("CA", 5), Bar(OTHER, 8)]


def test_a_field_that_nobody_has_is_other(database, delivery):
    assert bars(database, delivery, field="nothing", top=3) == [Bar(OTHER, 13)]


@pytest.mark.req("R116")
def test_the_same_counts_give_the_same_picture_and_longer_bars_are_longer():
    counts = [Bar("CA", 40), Bar("\u5317\u6d77\u9053", 20), Bar("x" * 99, 0)]
    drawn = picture("Leads by state", counts)
    assert drawn == picture("Leads by state", counts)
    image = Image.open(io.BytesIO(drawn)).convert("RGB")
    blue = [
        sum(image.getpixel((x, 96 + 56 * row + 20)) == (43, 108, 176) for x in range(1280))
        for row in range(3)
    ]
    assert blue[0] > 600
    assert abs(blue[0] - 2 * blue[1]) <= 4
    assert blue[2] < 10
