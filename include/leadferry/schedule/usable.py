"""What keeps a checked schedule from being used as a timetable: refused with the file, before Airflow would refuse it.

Airflow refuses a timetable with all others of the same DAG file, and names no line. So every reason it has is looked for
here, without Airflow, while the batch is loaded.
"""

from __future__ import annotations

import json
from datetime import datetime

from leadferry.schedule.ending import ended
from leadferry.schedule.model import SCHEDULES, Cron, Schedule, Timed


def why_unusable(schedule: Schedule, *, timezone: str, now: datetime, batch_id: str = "") -> str | None:
    """Say why a schedule cannot become a timetable; None when it can, and for one without times of its own.

    Args:
        schedule: a checked schedule.
        timezone: the batch's zone, for a schedule that names none.
        now: any aware moment.
        batch_id: whose share of `spread` counts.
    """
    if not isinstance(schedule, Timed | Cron):
        return None
    end = ended(schedule, timezone=timezone, now=now, batch_id=batch_id)
    # One that is over is no mistake: the run of its last departure still needs the DAG.
    if end is not None and end.last is None:
        return str(end)
    stored = schedule.model_dump(mode="json", exclude={"template"}, exclude_defaults=True)
    again = SCHEDULES.validate_python(json.loads(json.dumps(stored)))
    return (
        None
        if again == schedule.model_copy(update={"template": None})
        else "the schedule changes when it is stored"
    )
