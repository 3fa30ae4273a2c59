"""The key that signs tokens: `JWT_SECRET`, or one that is made once and kept beside the spool."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from forebay.errors import SettingsError
from forebay.setting_values import check_token_key
from forebay.settings import Settings

MADE_BYTES = 32


def resolve_secret(settings: Settings) -> str:
    """Return `JWT_SECRET`; if it is not set, the key beside the spool, which is made if it is missing.

    `Settings` allows no `JWT_SECRET` in a local environment only.

    Raises:
        SettingsError: the key beside the spool can be neither written nor read, or is not a key.
    """
    if settings.jwt_secret is not None:
        return settings.jwt_secret.get_secret_value()
    path = settings.secret_path
    with _explaining(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # The first process makes the key, readable for its owner only; all others read it.
        with contextlib.suppress(FileExistsError):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w", encoding="ascii") as file:
                file.write(secrets.token_urlsafe(MADE_BYTES))
        return _read(path)


def find_secret(settings: Settings) -> str | None:
    """Return the secret like `resolve_secret`, but make none: None if there is none yet.

    Raises:
        SettingsError: the key beside the spool cannot be read, or is not a key.
    """
    if settings.jwt_secret is not None:
        return settings.jwt_secret.get_secret_value()
    path = settings.secret_path
    with _explaining(path), contextlib.suppress(FileNotFoundError):
        return _read(path)
    return None


def _read(path: Path) -> str:
    secret = path.read_text(encoding="ascii").strip()
    check_token_key(secret)
    return secret


@contextlib.contextmanager
def _explaining(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SettingsError(f"JWT_SECRET: not set, and none can be kept at {path}: {error.strerror}") from error
    except ValueError:
        raise SettingsError(f"JWT_SECRET: not set, and {path} holds no key; remove that file, or set one") from None
