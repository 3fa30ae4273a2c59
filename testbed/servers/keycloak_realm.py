"""A realm of a real Keycloak: made and changed over its admin REST API, as an administrator does in the console."""

from __future__ import annotations

import http.client
import itertools
import json
from typing import Any
from urllib.parse import urlencode, urlsplit

from testbed.servers.keycloak_install import ADMIN, ADMIN_PASSWORD

CALL_TIMEOUT_S = 60.0
CLIENT_SECRET = "the secret of each client of the tests"
TOKEN_LIFE_S = 3600
KEY_PROVIDERS = {
    "RS256": ("rsa-generated", {"algorithm": "RS256", "keySize": "2048"}),
    "PS256": ("rsa-generated", {"algorithm": "PS256", "keySize": "2048"}),
    "ES256": ("ecdsa-generated", {"ecdsaEllipticCurveKey": "P-256"}),
    "EdDSA": ("eddsa-generated", {"eddsaEllipticCurveKey": "Ed25519"}),
}
"""Kinds of keys by the algorithm of the tokens that they sign, and their settings."""


class Realm:
    """One realm, with its clients and keys.

    Attributes:
        issuer: `iss` of its tokens.
        keys_path: the path at which it publishes its keys.
    """

    def __init__(self, url: str, name: str) -> None:
        """Make a new realm in the Keycloak at `url`. Keycloak gives it a key for RS256."""
        self._url = url
        self._name = name
        self._numbers = itertools.count(1)
        self.issuer = f"{url}/realms/{name}"
        self.keys_path = f"/realms/{name}/protocol/openid-connect/certs"
        self._administer("POST", "", {"realm": name, "enabled": True, "accessTokenLifespan": TOKEN_LIFE_S})
        self._id: str = self._administer("GET", f"/{name}")["id"]

    def add_scope(self, name: str, audience: str) -> None:
        """Add a client scope that puts its own name into `scope` of a token, and an audience into `aud`."""
        mapper = {
            "name": "audience",
            "protocol": "openid-connect",
            "protocolMapper": "oidc-audience-mapper",
            "config": {"included.custom.audience": audience, "access.token.claim": "true"},
        }
        scope = {
            "name": name,
            "protocol": "openid-connect",
            "attributes": {"include.in.token.scope": "true"},
            "protocolMappers": [mapper],
        }
        self._administer("POST", f"/{self._name}/client-scopes", scope)

    def add_client(self, client_id: str, algorithm: str, *scopes: str) -> None:
        """Add a client with a service account, whose tokens are signed with one algorithm and have these scopes."""
        client = {
            "clientId": client_id,
            "secret": CLIENT_SECRET,
            "serviceAccountsEnabled": True,
            "standardFlowEnabled": False,
            # Without Keycloak's own scope `basic` a token has no `sub`.
            "defaultClientScopes": ["basic", *scopes],
            "attributes": {"access.token.signed.response.alg": algorithm},
        }
        self._administer("POST", f"/{self._name}/clients", client)

    def add_key(self, algorithm: str) -> str:
        """Add a key, which signs all new tokens of its algorithm from now on; return its name."""
        provider, settings = KEY_PROVIDERS[algorithm]
        number = next(self._numbers)
        component = {
            "name": f"{algorithm} {number}",
            "providerId": provider,
            "providerType": "org.keycloak.keys.KeyProvider",
            "parentId": self._id,
            # That of the realm's first keys is 100.
            "config": {name: [value] for name, value in settings.items()} | {"priority": [str(100 + number)]},
        }
        self._administer("POST", f"/{self._name}/components", component)
        return str(component["name"])

    def disable_key(self, name: str) -> None:
        """Publish a key no longer."""
        query = urlencode({"name": name, "type": "org.keycloak.keys.KeyProvider"})
        (component,) = self._administer("GET", f"/{self._name}/components?{query}")
        component["config"] |= {"enabled": ["false"], "active": ["false"]}
        self._administer("PUT", f"/{self._name}/components/{component['id']}", component)

    def token(self, client_id: str) -> str:
        """Return a new token of a client's service account."""
        grant = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": CLIENT_SECRET}
        return self._get_token(self._name, grant)

    def _administer(self, method: str, path: str, body: object = None) -> Any:
        # A new one each time, as those of the administrator last for a minute.
        grant = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN, "password": ADMIN_PASSWORD}
        headers = {
            "Authorization": f"Bearer {self._get_token('master', grant)}",
            "Content-Type": "application/json",
        }
        content = None if body is None else json.dumps(body)
        return self._call(method, f"/admin/realms{path}", content, headers)

    def _get_token(self, realm: str, grant: dict[str, str]) -> str:
        path = f"/realms/{realm}/protocol/openid-connect/token"
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        return str(self._call("POST", path, urlencode(grant), form)["access_token"])

    def _call(self, method: str, path: str, body: str | None, headers: dict[str, str]) -> Any:
        connection = http.client.HTTPConnection(urlsplit(self._url).netloc, timeout=CALL_TIMEOUT_S)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status >= http.HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"{method} {path}: {response.status} {answer!r}")
        return json.loads(answer) if answer else None
