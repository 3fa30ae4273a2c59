"""Signs requests for AWS (Signature Version 4) with botocore, which nothing else needs.

See https://docs.aws.amazon.com/opensearch-service/latest/developerguide/request-signing.html and, for `aoss`, which
wants the body's hash as a header,
https://docs.aws.amazon.com/opensearch-service/latest/developerguide/serverless-clients.html.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
from urllib.parse import parse_qsl

from forebay.errors import OperatorNeeded, SettingsError, SinkUnreachable
from forebay.setting_values import AwsService
from forebay.sinks.opensearch.advice import AWS_CREDENTIALS

HASH_HEADER = "X-Amz-Content-SHA256"


class Signer:
    """Signs for one region and service with the credentials that botocore finds."""

    def __init__(self, region: str, service: AwsService) -> None:
        """Load botocore.

        Raises:
            SettingsError: botocore is not installed.
        """
        try:
            import botocore.session  # noqa: PLC0415 - an extra, and it takes 13 MB
        except ImportError:
            raise SettingsError(
                "FOREBAY_OPEN_SEARCH_AWS_REGION: needs the package botocore: pip install 'forebay[aws]'"
            ) from None
        self._session = botocore.session.Session()
        # The session searches for credentials once and keeps them; two threads would do so at the same time.
        self._lock = threading.Lock()
        self._region = region
        self._service = service.value

    async def sign(self, method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        """Return the header lines with the signature among them.

        In a thread: hashing takes milliseconds, and finding or renewing credentials may ask the network.

        Raises:
            OperatorNeeded: there are no credentials.
            SinkUnreachable: they could not be had this time.
        """
        return await asyncio.to_thread(self._sign, method, url, headers, body)

    def _sign(self, method: str, url: str, headers: dict[str, str], body: bytes) -> dict[str, str]:
        from botocore.auth import SigV4Auth  # noqa: PLC0415 - as above
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415

        address, _, query = url.partition("?")
        # botocore takes the hash from this header and does not read the body again.
        hashed = headers | {HASH_HEADER: hashlib.sha256(body).hexdigest()}
        request = AWSRequest(
            method=method, url=address, headers=hashed, params=dict(parse_qsl(query, keep_blank_values=True))
        )
        try:
            with self._lock:
                found = self._session.get_credentials()
                # One that can be renewed would let the secret and the token of two generations be read.
                frozen = found.get_frozen_credentials() if found else None
            if frozen is None:
                raise OperatorNeeded("there are no AWS credentials", "aws_credentials", AWS_CREDENTIALS)
            SigV4Auth(frozen, self._service, self._region).add_auth(request)
        except BotoCoreError as error:
            raise SinkUnreachable(f"AWS credentials: {error}") from error
        return dict(request.headers.items())
