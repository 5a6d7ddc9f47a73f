"""Deliver to Amazon S3 or a store that speaks its protocol.

One `PutObject`, or the completion of a multipart upload, makes an object appear complete or not at all, and
`If-None-Match: *` makes it create and never replace. Stores that do not know that header get a look before the
upload instead.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlencode

from pydantic import Field, model_validator

from leadferry.destinations.faults.aws import aws_faults
from leadferry.destinations.objects import (
    ObjectSession,
    ObjectStore,
    Standing,
    Stream,
    TagKey,
    address,
    rendered_tags,
)
from leadferry.destinations.parcel import OutgoingFile, Parcel, digest
from leadferry.errors import DeliveryError
from leadferry.templates import Template
from leadferry.units import Size

S3Client = Any
"""What boto3 makes at run time out of Amazon's description of the service."""

LARGEST_PUT = 5 * 1024**3
"""Bytes that S3 takes in one request."""

_PART = 16 << 20
"""Bytes of a part, and so of memory, unless the file would need more parts than there may be."""

_MOST_PARTS = 10_000


class S3(ObjectStore):
    """A prefix in a bucket of Amazon S3 or a store that speaks its protocol."""

    connection_kind: ClassVar[str] = "aws"
    largest: ClassVar[int] = 5 * 1024**4

    type: Literal["s3"] = "s3"
    connection: str = Field(
        default="aws_default", min_length=1, description="Airflow connection of type aws."
    )
    bucket: str = Field(min_length=3, max_length=63, description="The bucket; must exist.")
    bucket_owner: str | None = Field(
        default=None, pattern=r"^\d{12}$", description="Refuse a bucket that belongs to another AWS account."
    )
    region: str | None = Field(
        default=None, min_length=1, description="The bucket's region; the connection's when left out."
    )
    endpoint_url: str | None = Field(
        default=None,
        pattern=r"^https?://[^/@?#]+/?$",
        description="URL of a store other than Amazon's; the connection's `endpoint_url` when left out.",
    )
    addressing: Literal["path", "virtual"] | None = Field(
        default=None,
        description="Whether the bucket stands in the path or before the host's name; decided by boto3 when left out.",
    )
    encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        default=None, description="Server-side encryption to ask for; the bucket's own setting when left out."
    )
    kms_key: str | None = Field(
        default=None, description="Key id or ARN for `aws:kms`; the account's default when left out."
    )
    acl: (
        Literal[
            "private",
            "public-read",
            "public-read-write",
            "authenticated-read",
            "aws-exec-read",
            "bucket-owner-read",
            "bucket-owner-full-control",
        ]
        | None
    ) = Field(default=None, description="Canned access control list of the object.")
    storage_class: str | None = Field(
        default=None, pattern=r"^[A-Z_]+$", description="Such as `STANDARD_IA`; the bucket's when left out."
    )
    tags: dict[TagKey, Template] = Field(
        default_factory=dict, max_length=10, description="Tags of the object; the values are templates."
    )
    multipart_above: Annotated[Size, Field(gt=0, le=LARGEST_PUT)] = Field(
        default=100_000_000, description="Larger files are sent in parts, such as 100MB."
    )

    @model_validator(mode="after")
    def _key_needs_kms(self) -> Self:
        if self.kms_key is not None and self.encryption not in {"aws:kms", "aws:kms:dsse"}:
            raise ValueError("kms_key needs encryption: aws:kms")
        return self

    @property
    def where(self) -> str:
        """The connection, the bucket and the prefix, as written."""
        return f"{self.via}, s3://{self.bucket}/{self.prefix}"

    def endpoint(self) -> tuple[str, int] | None:
        """See `DestinationBase.endpoint`."""
        with aws_faults(self.via):
            client = _client(self)
        try:
            return address(client.meta.endpoint_url)
        finally:
            client.close()

    @contextmanager
    def open(self) -> Iterator[S3Session]:
        """Make the client by the Airflow connection; whether the credentials are good shows at the first request."""
        with aws_faults(self.via):
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
    found = S3Hook(aws_conn_id=destination.connection)
    # The connection may set other things for S3 that have to stay.
    style: Any = {**(getattr(found.config, "s3", None) or {})}
    if destination.addressing:
        style["addressing_style"] = destination.addressing
    config = found.config.merge(
        Config(
            connect_timeout=destination.timeout,
            read_timeout=destination.timeout,
            # Trying again is Airflow's part.
            retries={"total_max_attempts": 1},
            # Stores other than Amazon's often do not know the checksums that boto3 adds by itself; ours is explicit.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            signature_version="s3v4",
            s3=style,
        )
    )
    hook = S3Hook(aws_conn_id=destination.connection, region_name=destination.region, config=config)
    if destination.endpoint_url is None:
        return hook.get_conn()
    return hook.get_session(region_name=destination.region).client(
        "s3",
        endpoint_url=destination.endpoint_url,
        config=config,
        verify=hook.verify,
        region_name=destination.region,
    )


@dataclass(frozen=True, kw_only=True)
class _Prints:
    """What a store may say about the bytes of a file, computed from the file."""

    md5: str
    """The ETag after one `PutObject`, unless the bucket encrypts with KMS."""
    parts_etag: str
    """The ETag after an upload in our parts, unless the bucket encrypts with KMS."""
    parts_checksum: str
    """The store's SHA-256 after an upload in our parts, in Base64, without the number of parts."""


def part_size(size: int) -> int:
    """Return the bytes of each part but the last; depends on nothing but the file's size."""
    return max(_PART, math.ceil(size / _MOST_PARTS))


def _prints(file: OutgoingFile) -> _Prints:
    whole = hashlib.md5(usedforsecurity=False)
    md5s: list[bytes] = []
    sha256s: list[bytes] = []
    stream = Stream(file.blocks, size=file.size)
    # Bytes of an empty file are one empty part.
    while (part := stream.read(part_size(file.size))) or not md5s:
        whole.update(part)
        md5s.append(hashlib.md5(part, usedforsecurity=False).digest())
        sha256s.append(hashlib.sha256(part).digest())
        if not part:
            break
    return _Prints(
        md5=whole.hexdigest(),
        parts_etag=f"{hashlib.md5(b''.join(md5s), usedforsecurity=False).hexdigest()}-{len(md5s)}",
        parts_checksum=_base64(hashlib.sha256(b"".join(sha256s)).digest()),
    )


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


class S3Session(ObjectSession[S3, _Prints]):
    """A client for one bucket."""

    def __init__(self, destination: S3, client: S3Client) -> None:
        super().__init__(destination)
        self._client = client
        owner = destination.bucket_owner
        self._bucket = {"Bucket": destination.bucket, **({"ExpectedBucketOwner": owner} if owner else {})}

    def _translated(self, where: str) -> AbstractContextManager[None]:
        return aws_faults(where)

    def _url(self, key: str) -> str:
        return f"s3://{self._destination.bucket}/{key}"

    def _region(self) -> str:
        # The header comes with every answer of Amazon's; other stores know only the older question.
        headers = self._client.head_bucket(**self._bucket)["ResponseMetadata"]["HTTPHeaders"]
        if region := headers.get("x-amz-bucket-region"):
            return str(region)
        return self._client.get_bucket_location(**self._bucket)["LocationConstraint"] or "us-east-1"

    def _look(self, key: str) -> Standing | None:
        from botocore.exceptions import ClientError

        try:
            head = self._client.head_object(**self._bucket, Key=key, ChecksumMode="ENABLED")
        except ClientError as error:
            # A missing bucket looks the same here; the upload tells them apart.
            if error.response["Error"]["Code"] in {"404", "NoSuchKey", "NotFound"}:
                return None
            raise
        details = {"etag": head.get("ETag"), "version": head.get("VersionId")}
        return Standing(size=head["ContentLength"], details=details, answer=head)

    def _same(self, key: str, file: OutgoingFile, standing: Standing) -> str | None:
        """Compare by what the store computed, and read the object back where that says nothing."""
        head = standing.answer
        checksum, etag = head.get("ChecksumSHA256", ""), head.get("ETag", "").strip('"')
        if checksum == _base64(bytes.fromhex(file.sha256)):
            return "checksum of the store"
        if checksum and head.get("ChecksumType") == "FULL_OBJECT":
            return None
        # Not every store writes the number of parts behind a checksum over parts.
        if checksum and checksum.partition("-")[0] == self._prints(file).parts_checksum:
            return "checksums of the store over the parts"
        # An ETag is made of MD5s only without KMS encryption, so it may prove but not disprove.
        if etag in {self._prints(file).md5, self._prints(file).parts_etag}:
            return "ETag is the MD5" if "-" not in etag else "ETag is the MD5 of the parts"
        body = self._client.get_object(**self._bucket, Key=key)["Body"]
        return "read back" if digest(body) == file.sha256 else None

    def _computed(self, file: OutgoingFile) -> _Prints:
        return _prints(file)

    def _put(self, key: str, parcel: Parcel) -> Mapping[str, Any]:
        once = parcel.file.size <= self._destination.multipart_above
        upload = self._put_once if once else self._put_in_parts
        answer = upload(key, parcel)
        return {"etag": answer.get("ETag"), "version": answer.get("VersionId")}

    def _put_once(self, key: str, parcel: Parcel) -> dict[str, Any]:
        file = parcel.file
        checksum = _base64(bytes.fromhex(file.sha256))
        body = _Braked(self._destination, file)

        def put(**condition: str) -> dict[str, Any]:
            body.seek(0)
            answer = self._client.put_object(
                **self._bucket,
                Key=key,
                Body=body,
                ChecksumSHA256=checksum,
                **self._asked(parcel),
                **condition,
            )
            return dict(answer)

        with _braking(self._client, body):
            return self._on_condition(put)

    def _put_in_parts(self, key: str, parcel: Parcel) -> dict[str, Any]:
        self._abort_remains(key)
        upload = {
            **self._bucket,
            "Key": key,
            "UploadId": self._client.create_multipart_upload(
                **self._bucket, Key=key, ChecksumAlgorithm="SHA256", **self._asked(parcel)
            )["UploadId"],
        }
        try:
            parts = self._send_parts(parcel.file, upload)
        except Exception:
            # Nothing is visible yet; parts that stay cost the recipient money until somebody removes them.
            with suppress(DeliveryError), self._translated(self._where(key)):
                self._client.abort_multipart_upload(**upload)
            raise

        def complete(**condition: str) -> dict[str, Any]:
            return dict(
                self._client.complete_multipart_upload(
                    **upload, MultipartUpload={"Parts": parts}, **condition
                )
            )

        return self._on_condition(complete)

    def _send_parts(self, file: OutgoingFile, upload: Mapping[str, Any]) -> list[dict[str, Any]]:
        stream = Stream(lambda: self._destination.blocks(file), size=file.size)
        parts: list[dict[str, Any]] = []
        while part := stream.read(part_size(file.size)):
            checksum, number = _base64(hashlib.sha256(part).digest()), len(parts) + 1
            answer = self._client.upload_part(**upload, PartNumber=number, Body=part, ChecksumSHA256=checksum)
            parts.append({"PartNumber": number, "ETag": answer["ETag"], "ChecksumSHA256": checksum})
        return parts

    def _abort_remains(self, key: str) -> None:
        """Abort unfinished uploads to this very key; one that still runs fails and is looked up by its own try."""
        with suppress(DeliveryError), self._translated(self._where(key)):
            listed = self._client.list_multipart_uploads(**self._bucket, Prefix=key)
            for found in listed.get("Uploads", []):
                if found["Key"] == key:
                    self._client.abort_multipart_upload(**self._bucket, Key=key, UploadId=found["UploadId"])

    def _on_condition(self, call: Any) -> dict[str, Any]:
        """Ask for a free name where none may be replaced; a store that does not know the condition got a look before."""
        from botocore.exceptions import ClientError

        if self._replaces:
            return dict(call())
        try:
            return dict(call(IfNoneMatch="*"))
        except ClientError as error:
            if not _knows_no_condition(error):
                raise
        return dict(call())

    def _asked(self, parcel: Parcel) -> dict[str, Any]:
        """Return what the object should be, in the parameters of `PutObject` and `CreateMultipartUpload`."""
        wanted = self._destination
        chosen = {
            "ContentType": parcel.file.media_type,
            "Metadata": wanted.metadata_for(parcel),
            "ServerSideEncryption": wanted.encryption,
            "SSEKMSKeyId": wanted.kms_key,
            "ACL": wanted.acl,
            "StorageClass": wanted.storage_class,
            "Tagging": urlencode(rendered_tags(wanted.tags, parcel)),
        }
        return {name: value for name, value in chosen.items() if value}

    def _delete(self, key: str, standing: Standing) -> None:  # noqa: ARG002  (a version would stay visible as deleted)
        self._client.delete_object(**self._bucket, Key=key)

    def _sign(self, key: str, *, expires: timedelta) -> str:
        return str(
            self._client.generate_presigned_url(
                "get_object",
                Params={**self._bucket, "Key": key},
                ExpiresIn=int(expires.total_seconds()),
            )
        )


class _Braked(Stream):
    """A body that is read twice over plain HTTP, to be signed and to be sent: the pace holds for the sending only."""

    def __init__(self, destination: S3, file: OutgoingFile) -> None:
        self.braked = False
        super().__init__(lambda: destination.blocks(file) if self.braked else file.blocks(), size=file.size)

    def release(self, **_: Any) -> None:
        """Start anew at the pace that the destination may be used; called by botocore before it sends."""
        if not self.braked:
            self.braked = True
            self._start()


@contextmanager
def _braking(client: S3Client, body: _Braked) -> Iterator[None]:
    client.meta.events.register("before-send.s3.PutObject", body.release)
    try:
        yield
    finally:
        client.meta.events.unregister("before-send.s3.PutObject", body.release)


def _knows_no_condition(error: Any) -> bool:
    """Tell a store that does not implement `If-None-Match` on uploads from one that refuses this upload."""
    answer = error.response
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return bool(
        status == HTTPStatus.NOT_IMPLEMENTED or answer.get("Error", {}).get("Code") == "NotImplemented"
    )
