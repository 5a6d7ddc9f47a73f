"""Every error that Leadferry raises on purpose, in one tree.

The two questions an error must answer are *who acts now* and *does trying again help*.

```
LeadferryError
├── BatchConfigError            fix the file
├── LeadImportError             fix the file of leads
├── StoreError                  the lead store refused or could not be reached
│   └── StoreUnavailableError   try again (StoreConflictError is one)
├── RenderError                 fix the mapping or the template, or the leads
├── NothingToDeliverError       the batch asked to fail when there is nothing to deliver
├── NotReadyError               what the batch waits for did not come in time
├── DepartureRefusedError       the batch is disabled or not tested
└── DeliveryError               what happened at the destination
    ├── TransientDeliveryError  try again
    │   ├── DnsError · ConnectTimeoutError · ConnectionRefusedByHostError
    │   └── TransferInterruptedError · DestinationBusyError
    ├── PermanentDeliveryError  a person must act first
    │   ├── HostKeyError · AuthenticationError · AccessDeniedError · NoSuchPathError
    │   │     (ExpiredCredentialsError is an AuthenticationError, NoSuchBucketError a NoSuchPathError)
    │   ├── QuotaError · NameConflictError · MessageRefusedError · TooLargeError · RegionError
    │   └── RejectedPolicyError · MissingExtraError · DestinationSuspendedError
    └── OutcomeUnknownError     no protocol can tell whether it arrived: a person decides
```

Messages say what happened, where, and what to do next.
They never hold a lead's data, a payload or a secret: foreign exceptions are classified, not quoted.
"""

from __future__ import annotations

from typing import ClassVar


class LeadferryError(Exception):
    """Something Leadferry knows about went wrong; the message says what to do next."""

    code: ClassVar[str] = "error"
    """Short name under which the ledger, logs and metrics file this error; never changes."""

    hint: ClassVar[str] = ""
    """What the reader should do next, as a sentence."""

    retry: ClassVar[bool] = False
    """Whether the same thing, tried again later without anybody's help, may succeed."""

    def __init__(self, what: str, *, hint: str | None = None) -> None:
        self.what = what
        self.next_step = self.hint if hint is None else hint
        super().__init__(f"{what}. {self.next_step}".strip() if self.next_step else what)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by the two texts, so that the error survives a process boundary."""
        return (_rebuild, (type(self), self.what, self.next_step))


def _rebuild(kind: type[LeadferryError], what: str, next_step: str) -> LeadferryError:
    return kind(what, hint=next_step)


class BatchConfigError(LeadferryError):
    """A file under `config/` says something that cannot be meant."""

    code = "config"


class LeadImportError(LeadferryError):
    """A file of leads could not be read at all; single bad lines go to the rejects file instead."""

    code = "import"


class StoreError(LeadferryError):
    """The lead store refused: an invariant would have been broken, or the database is not set up."""

    code = "store"
    hint = "Nothing was changed; `leadferry deliveries BATCH` shows how things stand"


class StoreUnavailableError(StoreError):
    """The lead store could not be reached or the connection was cut."""

    code = "store_unavailable"
    hint = "Check the Airflow connection 'leadferry' and that PostgreSQL is running; the task is tried again"
    retry = True


class StoreConflictError(StoreUnavailableError):
    """Another transaction changed the same meanwhile; nothing was changed by this one."""

    code = "store_conflict"
    hint = "Nothing needs to be done for a task, it is tried again; give a command once more"


class RenderError(LeadferryError):
    """The claimed leads could not be written as the file that the batch asks for."""

    code = "render"
    hint = "Correct the batch file or the leads; they are back in the queue and go with the next departure"


class NothingToDeliverError(LeadferryError):
    """The queue is empty or under the minimum, and the batch's policy for that is `fail`."""

    code = "nothing_to_deliver"
    hint = "Check that leads come in by this batch's flows; leads that wait stay in the queue"


class NotReadyError(LeadferryError):
    """What the batch waits for (`conditions.ready`) was not there in time; nothing was claimed."""

    code = "not_ready"
    hint = "Look why it is late; then trigger the DAG, or leave the leads to the next departure"


class DepartureRefusedError(LeadferryError):
    """The batch may not depart now: it is disabled, or was not tested although it must be; nothing was claimed."""

    code = "departure_refused"
    hint = "Trigger it with `test`, then enable it; leads that wait stay in the queue"


class DeliveryError(LeadferryError):
    """Sending to a destination did not end in a confirmed delivery."""

    code = "delivery"


class TransientDeliveryError(DeliveryError):
    """Sending failed in a way that passes by itself."""

    code = "transient"
    retry = True


class DnsError(TransientDeliveryError):
    """The destination's host name could not be resolved."""

    code = "dns"
    hint = "Check the spelling of the host in the connection and the worker's DNS"


class ConnectTimeoutError(TransientDeliveryError):
    """The destination did not answer within the timeout."""

    code = "timeout"
    hint = "Check that the host is up and that a firewall lets this worker's address through"


class ConnectionRefusedByHostError(TransientDeliveryError):
    """The host answered that nothing listens on this port."""

    code = "refused"
    hint = "Check the port in the connection and that the recipient's server is running"


class TransferInterruptedError(TransientDeliveryError):
    """The connection was cut, or less arrived than was sent; nothing is visible under the final name."""

    code = "interrupted"
    hint = "Nothing to do: the next try sends the same bytes from the start"


class DestinationBusyError(TransientDeliveryError):
    """The destination is there but asks to be left alone for a while (too many sessions, throttled)."""

    code = "busy"
    hint = "Nothing to do: the next try comes later; lower the pool's size if this repeats"


class PermanentDeliveryError(DeliveryError):
    """Sending failed and will fail again until a person changes something."""

    code = "permanent"


class HostKeyError(PermanentDeliveryError):
    """The server's host key or certificate is unknown or is not the expected one."""

    code = "host_key"
    hint = "Ask the recipient for the key and put it into the connection's extra 'host_key'; never skip the check"


class AuthenticationError(PermanentDeliveryError):
    """The destination refused the credentials."""

    code = "auth"
    hint = "Renew user, password or key in the Airflow connection, then deliver again"


class ExpiredCredentialsError(AuthenticationError):
    """The credentials were good once: the token, signature or key has expired or was revoked."""

    code = "auth_expired"
    hint = "Put fresh credentials into the Airflow connection, then deliver again; check the worker's clock as well"


class AccessDeniedError(PermanentDeliveryError):
    """Logged in, but not allowed to write there."""

    code = "permission"
    hint = "Ask the recipient for write permission on the directory, then deliver again"


class NoSuchPathError(PermanentDeliveryError):
    """The directory, bucket or container does not exist."""

    code = "no_such_path"
    hint = "Correct the path in the batch file, or ask the recipient to create it"


class NoSuchBucketError(NoSuchPathError):
    """The bucket or container does not exist, or not in this account."""

    code = "no_such_bucket"
    hint = "Correct the bucket or container in the batch file, or ask the recipient to create it"


class QuotaError(PermanentDeliveryError):
    """The destination has no room left."""

    code = "quota"
    hint = "Ask the recipient to make room, then deliver again"


class NameConflictError(PermanentDeliveryError):
    """Other bytes already stand under this file's name; they were left alone."""

    code = "conflict"
    hint = "Make the file name unique (for example with {{ delivery.number }}) or ask the recipient to clear the old file"


class MessageRefusedError(PermanentDeliveryError):
    """The mail server refused this sender, recipient or message."""

    code = "message_refused"
    hint = "Check the address, and that the recipient's mail server accepts mail from this sender"


class RejectedPolicyError(PermanentDeliveryError):
    """The mail server refused the message for a policy: spam, an unproven sender, a forbidden attachment."""

    code = "rejected_policy"
    hint = (
        "Ask the recipient's mail administrators to allow the sender, and check SPF, DKIM and DMARC of its domain;"
        " sending again without a change makes it worse"
    )


class TooLargeError(PermanentDeliveryError):
    """The file or message is larger than the destination takes."""

    code = "too_large"
    hint = "Compress or split the file, or deliver it to a storage destination"


class RegionError(PermanentDeliveryError):
    """The bucket is in another region than the connection says, or than this batch may deliver to."""

    code = "region"
    hint = "Correct the region in the Airflow connection, or deliver to a bucket in an allowed region"


class MissingExtraError(PermanentDeliveryError):
    """This destination needs a provider that is not installed."""

    code = "missing_extra"


class DestinationSuspendedError(PermanentDeliveryError):
    """Nothing is sent there at present: a person holds it, or it failed too often or refused the login."""

    code = "suspended"
    hint = "When the cause is removed, say `leadferry resume`; `leadferry suspensions` lists what is held and why"


class OutcomeUnknownError(DeliveryError):
    """The connection went after the point from which on only the destination knows whether it arrived."""

    code = "unknown"
    hint = (
        "Ask the recipient whether it arrived, then settle it with"
        " `leadferry dispatch confirm|fail ID --reason TEXT`; it is never sent again by itself"
    )
