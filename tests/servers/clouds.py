"""A cloud's API that refuses every upload, and what clouds say when they refuse."""

import http.server
import json

TYPES = {"s3": "aws", "gcs": "google_cloud_platform", "azure": "wasb"}


class Refusing(http.server.ThreadingHTTPServer):
    """Has nothing under any name, and answers every upload in the same way."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.says = (500, {}, b"")


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def serve(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, headers, body = (404, {}, b"") if self.command in {"HEAD", "GET"} else self.server.says
        self.send_response_only(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body if self.command != "HEAD" else b"")


for _method in ("GET", "HEAD", "POST", "PUT"):
    setattr(Handler, f"do_{_method}", Handler.serve)


def of_s3(code, **headers):
    body = f"<Error><Code>{code}</Code><Message>555-0100</Message></Error>"
    return {"Content-Type": "application/xml", **headers}, body.encode()


def of_gcs(reason, message="555-0100"):
    told = {"errors": [{"reason": reason, "message": message}], "message": message}
    return {"Content-Type": "application/json"}, json.dumps({"error": told}).encode()


def of_azure(code, message="555-0100"):
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return {"Content-Type": "application/xml", "x-ms-error-code": code}, body.encode()


REFUSALS = [
    ("s3", 400, of_s3("ExpiredToken"), "auth_expired"),
    ("s3", 400, of_s3("TokenRefreshRequired"), "auth_expired"),
    ("s3", 403, of_s3("RequestExpired"), "auth_expired"),
    ("s3", 403, of_s3("InvalidAccessKeyId"), "auth"),
    ("s3", 403, of_s3("SignatureDoesNotMatch"), "auth"),
    ("s3", 403, of_s3("AccessDenied"), "permission"),
    ("s3", 404, of_s3("NoSuchBucket"), "no_such_bucket"),
    ("s3", 301, of_s3("PermanentRedirect", **{"x-amz-bucket-region": "eu-central-1"}), "region"),
    ("s3", 400, of_s3("IllegalLocationConstraintException"), "region"),
    ("s3", 403, of_s3("QuotaExceeded"), "quota"),
    ("s3", 507, of_s3("XMinioStorageFull"), "quota"),
    ("s3", 503, of_s3("SlowDown"), "busy"),
    ("s3", 429, of_s3("TooManyRequests"), "busy"),
    ("s3", 400, of_s3("EntityTooLarge"), "too_large"),
    ("s3", 400, of_s3("BadDigest"), "interrupted"),
    ("s3", 400, of_s3("AccessControlListNotSupported"), "permanent"),
    ("s3", 400, of_s3("InvalidStorageClass"), "permanent"),
    ("gcs", 401, of_gcs("authError"), "auth"),
    ("gcs", 403, of_gcs("forbidden"), "permission"),
    ("gcs", 403, of_gcs("accountDisabled"), "permission"),
    ("gcs", 404, of_gcs("notFound"), "no_such_bucket"),
    ("gcs", 403, of_gcs("quotaExceeded"), "quota"),
    ("gcs", 429, of_gcs("rateLimitExceeded"), "busy"),
    ("gcs", 403, of_gcs("userRateLimitExceeded"), "busy"),
    ("gcs", 503, of_gcs("backendError"), "busy"),
    ("gcs", 412, of_gcs("conditionNotMet"), "conflict"),
    ("gcs", 412, of_gcs("conditionNotMet", "violates constraints/gcp.resourceLocations"), "region"),
    ("gcs", 403, of_gcs("retentionPolicyNotMet"), "conflict"),
    ("gcs", 413, of_gcs("uploadTooLarge"), "too_large"),
    ("gcs", 400, of_gcs("invalid", "Provided CRC32C doesn't match calculated CRC32C"), "interrupted"),
    ("azure", 403, of_azure("AuthenticationFailed"), "auth"),
    (
        "azure",
        403,
        of_azure("AuthenticationFailed", "Signature not valid in the specified time frame"),
        "auth_expired",
    ),
    ("azure", 403, of_azure("AuthorizationPermissionMismatch"), "permission"),
    ("azure", 403, of_azure("AuthorizationFailure"), "permission"),
    ("azure", 403, of_azure("AccountIsDisabled"), "permission"),
    ("azure", 404, of_azure("ContainerNotFound"), "no_such_bucket"),
    ("azure", 409, of_azure("BlobAlreadyExists"), "conflict"),
    ("azure", 409, of_azure("BlobImmutableDueToPolicy"), "conflict"),
    ("azure", 412, of_azure("LeaseIdMissing"), "busy"),
    ("azure", 507, of_azure("InsufficientStorage"), "quota"),
    ("azure", 503, of_azure("ServerBusy"), "busy"),
    ("azure", 413, of_azure("RequestBodyTooLarge"), "too_large"),
    ("azure", 400, of_azure("Md5Mismatch"), "interrupted"),
]
"""Kind of store, status, headers and body of its answer, and the code of the error that it is."""
