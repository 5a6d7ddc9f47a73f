"""Where the files of a project are: `config/`, and the folder that holds it."""

from __future__ import annotations

import os
from pathlib import Path

import leadferry


def config_folder(*, project: Path | None = None) -> Path:
    """Return the folder that holds `batches/`, `recipients/` and `defaults.yaml`.

    `LEADFERRY_CONFIG` decides. Without it, it is the first of these that exists: `config/` of the given project,
    `config/` of the project that this package is installed from, `config/` beside Airflow's DAGs folder;
    and `config/` in the current directory when there is none.

    Args:
        project: the folder that holds `dags/`; a DAG file passes its own, so that a DAG bundle that was checked out
            at some version is read together with the config of that version.
    """
    named = os.environ.get("LEADFERRY_CONFIG")
    if named:
        return Path(named).expanduser().absolute()
    dags = os.environ.get("AIRFLOW__CORE__DAGS_FOLDER")
    projects = [project, Path(leadferry.__file__).parents[2], Path(dags).parent if dags else None]
    folders = [one / "config" for one in projects if one is not None]
    return next((one for one in folders if one.is_dir()), Path("config").absolute())


def project_folder() -> Path:
    """Return the folder that holds `config/`: relative paths in a batch file start there, whoever started the process."""
    return config_folder().parent
