"""Schedules that have a name: `schedule: {template: business_daily}`.

A template holds keys of a schedule; what the batch writes beside `template` wins over it.
The project's own stand in `config/schedules/*.yaml` and win over the built-in ones of the same name.
"""

from __future__ import annotations

from typing import Any

BUILT_IN: dict[str, dict[str, Any]] = {
    "daily": {"at": ["09:00"], "on": "days"},
    "business_daily": {"at": ["09:00"], "on": "business_days"},
    "twice_daily": {"at": ["09:00", "17:00"], "on": "days"},
    "hourly": {"hourly": {"minute": 0}},
    "business_hourly": {"hourly": {"minute": 0}, "between": ["09:00", "17:00"], "on": "business_days"},
    "weekly": {"at": ["09:00"], "on": ["mon"]},
    "month_start": {"at": ["09:00"], "on": {"month": "first business day"}},
    "month_end": {"at": ["17:00"], "on": {"month": "last business day"}},
    "quarter_start": {"at": ["09:00"], "on": {"quarter": "first business day"}},
    "quarter_end": {"at": ["17:00"], "on": {"quarter": "last business day"}},
    "fiscal_month_end": {"at": ["17:00"], "on": {"fiscal_month": "last business day"}},
    "fiscal_quarter_end": {"at": ["17:00"], "on": {"fiscal_quarter": "last business day"}},
    "year_end": {"at": ["17:00"], "on": {"year": "last business day"}},
}
"""The templates that need no file."""

_TIMES = ("at", "hourly", "every", "cron")


def expand(template: dict[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """Put what a batch writes over a template.

    A batch that says its own times leaves all of the template's times behind: two ways to say when would contradict
    each other.
    """
    kept = dict(template)
    if any(key in written for key in _TIMES):
        left = (
            (*_TIMES, "between", "starting")
            if "cron" not in written
            else (*_TIMES, "between", "starting", "on")
        )
        kept = {key: value for key, value in kept.items() if key not in left}
    return {**kept, **written}
