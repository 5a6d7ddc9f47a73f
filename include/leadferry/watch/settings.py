"""The key `maintenance` of `defaults.yaml`: how often somebody looks. Read while Airflow parses the DAG."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from pydantic import ValidationError

from leadferry.batch.load import MAINTENANCE, ConfigReader, Maintenance
from leadferry.batch.model import Notify
from leadferry.errors import BatchConfigError


def every(config: Path) -> timedelta | None:
    """Return how often the DAG runs; None for by hand only.

    A `defaults.yaml` that cannot be used is told by `leadferry check` and as an import error;
    the watchdog goes on as if it said nothing, because somebody must tell that no batch departs.
    """
    try:
        return Maintenance.model_validate(ConfigReader(config).defaults().get(MAINTENANCE) or {}).every
    except (BatchConfigError, ValidationError):
        return Maintenance().every


def notify_of_last_resort(config: Path) -> Notify:
    """Return who is told about a batch whose own file cannot be loaded: `notify` of `defaults.yaml`."""
    try:
        return Notify.model_validate(ConfigReader(config).defaults().get("notify") or {})
    except (BatchConfigError, ValidationError):
        return Notify()
