"""Deliver to Amazon S3 or a store that speaks its protocol.

One `PutObject` makes an object appear complete or not at all, and `If-None-Match: *` makes it create and never
replace. Stores that do not know that header get a look before the upload instead.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Literal

from pydantic import Field

from leadferry.destinations import faults
from leadferry.destinations.base import (
    DestinationBase,
    OutgoingFile,
    Parcel,
    Receipt,
    Session,
    digest,
    pool_name,
    rendered_path,
)
from leadferry.errors import (
    AccessDeniedError,
    ConnectTimeoutError,
    DeliveryError,
    DestinationBusyError,
    NameConflictError,
    OutcomeUnknownError,
    TooLargeError,
    TransferInterruptedError,
)
from leadferry.templates import Template

S3Client = Any
"""What boto3 makes at run time out of Amazon's description of the service."""

LARGEST = 5 * 1024**3
"""Bytes that S3 takes in one `PutObject`, which is the only upload that can be told not to replace."""


class S3(DestinationBase):
    """A prefix in a bucket of Amazon S3 or a store that speaks its protocol."""

    type: Literal["s3"] = "s3"
    connection: str = Field(
        default="aws_default", min_length=1, description="Airflow connection of type aws."
    )
    bucket: str = Field(min_length=3, max_length=63, description="The bucket; must exist.")
    prefix: Template = Field(
        default="", description="What stands before the file name in the key, as a folder; a template."
    )
    encryption: Literal["AES256", "aws:kms"] | None = Field(
        default=None, description="Server-side encryption to ask for; the bucket's own setting when left out."
    )
    kms_key: str | None = Field(
        default=None, description="Key id or ARN for `aws:kms`; the account's default when left out."
    )
    timeout: float = Field(default=60, gt=0, le=3600, description="Seconds that the store may stay silent.")

    @property
    def where(self) -> str:
        """The connection, the bucket and the prefix, as written."""
        return f"aws connection '{self.connection}', s3://{self.bucket}/{self.prefix}"

    @property
    def pool(self) -> str:
        """One pool per connection."""
        return pool_name("s3", self.connection)

    @contextmanager
    def open(self) -> Iterator[S3Session]:
        """Make the client by the Airflow connection; whether the credentials are good shows at the first request."""
        with faults.aws(f"aws connection '{self.connection}'"):
            client = _client(self)
        try:
            yield S3Session(self, client)
        finally:
            client.close()


def _client(destination: S3) -> S3Client:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.config import Config

    # Asked for first: the hook takes whatever credentials lie around on the worker when the connection is missing.
    S3Hook.get_connection(destination.connection)
    config = S3Hook(aws_conn_id=destination.connection).config.merge(
        Config(
            connect_timeout=destination.timeout,
            read_timeout=destination.timeout,
            # Trying again is Airflow's part.
            retries={"total_max_attempts": 1},
            # Stores other than Amazon's often do not know the checksums that boto3 adds by itself; ours is explicit.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
    )
    return S3Hook(aws_conn_id=destination.connection, config=config).get_conn()


class S3Session(Session):
    """A client for one bucket."""

    def __init__(self, destination: S3, client: S3Client) -> None:
        self._destination = destination
        self._client = client

    def find(self, parcel: Parcel) -> Receipt | None:
        """Look for the object by key, size and SHA-256."""
        key = self._key(parcel)
        with faults.aws(self._where(key)):
            return self._standing(key, parcel.file)

    def send(self, parcel: Parcel) -> Receipt:
        """Upload, verify; an object that is already there is only verified."""
        key, file = self._key(parcel), parcel.file
        if file.size > LARGEST:
            raise TooLargeError(
                f"{self._where(key)}: {file.size} bytes are more than the {LARGEST} of one upload"
            )
        with faults.aws(self._where(key)):
            return self._before(key, file) or self._deliver(key, parcel)

    def _key(self, parcel: Parcel) -> str:
        prefix = rendered_path(self._destination.prefix, parcel, where=self._destination.where).strip("/")
        return f"{prefix}/{parcel.file.name}" if prefix else parcel.file.name

    def _where(self, key: str) -> str:
        return f"aws connection '{self._destination.connection}', s3://{self._destination.bucket}/{key}"

    def _before(self, key: str, file: OutgoingFile) -> Receipt | None:
        """Look before the upload, for stores that ignore `If-None-Match`; who may not look relies on that header."""
        try:
            with faults.aws(self._where(key)):
                return self._standing(key, file)
        except AccessDeniedError:
            return None

    def _deliver(self, key: str, parcel: Parcel) -> Receipt:
        # Read once in full first: bytes that are not the rendered ones must not become an object.
        md5 = hashlib.md5(usedforsecurity=False)
        for block in parcel.file.blocks():
            md5.update(block)
        try:
            with faults.aws(self._where(key)):
                put = self._put(key, parcel, conditional=True)
        except NameConflictError:
            if receipt := self._standing(key, parcel.file):
                return receipt
            raise
        except (TransferInterruptedError, ConnectTimeoutError, DestinationBusyError) as cut:
            return self._after_cut(key, parcel.file, cut)
        return self._uploaded(key, parcel.file, put, md5=md5.hexdigest())

    def _put(self, key: str, parcel: Parcel, *, conditional: bool) -> dict[str, Any]:
        from botocore.exceptions import ClientError

        file = parcel.file
        arguments: dict[str, Any] = {
            "Bucket": self._destination.bucket,
            "Key": key,
            "ContentType": file.media_type,
            "ChecksumSHA256": base64.b64encode(bytes.fromhex(file.sha256)).decode(),
            "Metadata": {"sha256": file.sha256, "leadferry": parcel.mark},
            **({"IfNoneMatch": "*"} if conditional else {}),
            **self._encryption(),
        }
        try:
            with file.path.open("rb") as body:
                return dict(self._client.put_object(Body=body, **arguments))
        except ClientError as error:
            if conditional and _knows_no_condition(error):
                return self._put(key, parcel, conditional=False)
            raise

    def _encryption(self) -> dict[str, str]:
        chosen = {
            "ServerSideEncryption": self._destination.encryption,
            "SSEKMSKeyId": self._destination.kms_key,
        }
        return {name: value for name, value in chosen.items() if value}

    def _after_cut(self, key: str, file: OutgoingFile, cut: DeliveryError) -> Receipt:
        """The answer to the upload was lost: look whether the object is there."""
        try:
            with faults.aws(self._where(key)):
                receipt = self._standing(key, file)
        except DeliveryError as error:
            if isinstance(error, NameConflictError):
                raise
            raise OutcomeUnknownError(
                f"{self._where(key)}: the connection was cut during the upload, and looking for the object failed"
                f" ({error.code})"
            ) from None
        if receipt is None:
            raise cut
        return receipt

    def _uploaded(self, key: str, file: OutgoingFile, put: dict[str, Any], *, md5: str) -> Receipt:
        """Compare what the store has with what was sent; not every store checks our SHA-256 as Amazon does."""
        try:
            with faults.aws(self._where(key)):
                receipt = self._standing(key, file, md5=md5)
        except AccessDeniedError:
            # May write but not look.
            details = {
                "etag": put.get("ETag"),
                "version": put.get("VersionId"),
                "verified": "answer to the upload",
            }
            return Receipt(location=self._url(key), details=details)
        except NameConflictError:
            raise TransferInterruptedError(
                f"{self._where(key)}: the store has other bytes than were sent"
            ) from None
        if receipt is None:
            raise TransferInterruptedError(
                f"{self._where(key)}: the store does not have what it said it took"
            )
        return receipt

    def _standing(self, key: str, file: OutgoingFile, *, md5: str | None = None) -> Receipt | None:
        """Look at what stands under the key: nothing, this file, or something else.

        Args:
            key: where to look.
            file: what should be there.
            md5: of the file, when known; an equal ETag saves reading the object back.
        """
        head = self._head(key)
        if head is None:
            return None
        verified, seen = self._evidence(key, file, head, md5=md5)
        if head["ContentLength"] != file.size or seen != file.sha256:
            raise NameConflictError(f"{self._where(key)}: something else already stands under this key")
        details = {"etag": head.get("ETag"), "version": head.get("VersionId"), "verified": verified}
        return Receipt(location=self._url(key), size=file.size, sha256=seen, details=details)

    def _evidence(
        self, key: str, file: OutgoingFile, head: dict[str, Any], *, md5: str | None
    ) -> tuple[str, str | None]:
        """Return how the object's bytes are known, and their SHA-256."""
        if head["ContentLength"] != file.size:
            return "size", None
        if (checksum := _checksum(head)) is not None:
            return "checksum of the store", checksum
        # An ETag is the MD5 only without KMS encryption and multipart, so it may prove but not disprove.
        if md5 is not None and head.get("ETag", "").strip('"') == md5:
            return "ETag is the MD5", file.sha256
        body = self._client.get_object(Bucket=self._destination.bucket, Key=key)["Body"]
        return "read back", digest(body)

    def _head(self, key: str) -> dict[str, Any] | None:
        from botocore.exceptions import ClientError

        try:
            return dict(
                self._client.head_object(Bucket=self._destination.bucket, Key=key, ChecksumMode="ENABLED")
            )
        except ClientError as error:
            # A missing bucket looks the same here; the upload tells them apart.
            if error.response["Error"]["Code"] in ("404", "NoSuchKey", "NotFound"):
                return None
            raise

    def _url(self, key: str) -> str:
        return f"s3://{self._destination.bucket}/{key}"


def _checksum(head: dict[str, Any]) -> str | None:
    """Return the SHA-256 that the store computed over the whole object, None if it did not."""
    value = head.get("ChecksumSHA256")
    if not value or head.get("ChecksumType") == "COMPOSITE" or "-" in value:
        return None
    return base64.b64decode(value).hex()


def _knows_no_condition(error: Any) -> bool:
    """Tell a store that does not implement `If-None-Match` on uploads from one that refuses this upload."""
    answer = error.response
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return bool(
        status == HTTPStatus.NOT_IMPLEMENTED or answer.get("Error", {}).get("Code") == "NotImplemented"
    )
