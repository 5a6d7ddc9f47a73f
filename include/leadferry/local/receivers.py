"""The buyers' side of the try-out: which receivers run, the Airflow connections that lead to them, what they have."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leadferry.batch.model import Batch
from leadferry.destinations.s3 import S3
from leadferry.local.processes import Processes
from leadferry.local.workspace import PROJECT, Workspace

NAMES = ("sftp", "ftps", "smtp", "s3", "http")
"""The receivers; each is a module of this package and an Airflow connection `local_<name>`."""

_USER = "leadferry"


def start_all(
    processes: Processes, *, workspace: Workspace, batches: Sequence[Batch], environment: dict[str, str]
) -> None:
    """Start every receiver with its inbox; the folder and the buckets that the samples deliver into are there."""
    for name in ("sftp", "ftps"):
        (workspace.inbox(name) / "inbound").mkdir(parents=True, exist_ok=True)
    password = workspace.secrets().receiver_password
    arguments = {
        "sftp": [*_folders(workspace, "sftp"), "--user", _USER, "--password", password],
        "ftps": [*_folders(workspace, "ftps"), "--user", _USER, "--password", password],
        "smtp": [*_folders(workspace, "smtp"), "--user", _USER, "--password", password],
        "s3": ["--access-key", _USER, "--secret-key", password, *_buckets(batches)],
        "http": [*_folders(workspace, "http"), "--token", password],
    }
    for name in NAMES:
        command = [sys.executable, "-m", f"leadferry.local.{name}", *arguments[name]]
        processes.start(name, command, environment=environment, folder=PROJECT, announces=True)


def connections(processes: Processes) -> dict[str, dict[str, Any]]:
    """Wait until all of them listen, and return the Airflow connections to them by connection id."""
    return {f"local_{name}": processes.announcement(name)["connection"] for name in NAMES}


def fetch_objects(connection: dict[str, Any], *, batches: Sequence[Batch], inbox: Path) -> None:
    """Copy the samples' buckets into the inbox, because this S3 store keeps its objects in memory only."""
    import boto3
    from botocore.config import Config

    extra = connection["extra"]
    client = boto3.client(
        "s3",
        endpoint_url=extra["endpoint_url"],
        region_name=extra["region_name"],
        aws_access_key_id=connection["login"],
        aws_secret_access_key=connection["password"],
        config=Config(**extra["config_kwargs"]),
    )
    for bucket in _bucket_names(batches):
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for found in page.get("Contents", []):
                path = inbox / bucket / found["Key"]
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, found["Key"], str(path))


def _folders(workspace: Workspace, name: str) -> list[str]:
    return ["--root", str(workspace.inbox(name)), "--state", str(workspace.state(name))]


def _buckets(batches: Sequence[Batch]) -> list[str]:
    return [argument for bucket in _bucket_names(batches) for argument in ("--bucket", bucket)]


def _bucket_names(batches: Sequence[Batch]) -> list[str]:
    """Return the buckets that the batches deliver into here; one that nobody uses when there is none."""
    found = {
        destination.bucket
        for batch in batches
        for destination in batch.destinations
        if isinstance(destination, S3) and destination.connection == "local_s3"
    }
    return sorted(found) or ["leadferry"]
