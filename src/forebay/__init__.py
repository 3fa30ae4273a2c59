"""Takes events over HTTP and registers them in OpenSearch in bulk, without losing one."""

import importlib
import sys

__version__ = "0.1.0.dev0"


def _import_without(optional: str, name: str) -> None:
    """Import a package as if another one, which it uses only if that is installed, were not."""
    if optional in sys.modules:
        return
    # Python's import system takes None for a module that there is not (its reference, section 5.3.1).
    sys.modules[optional] = None  # type: ignore[assignment]
    try:
        importlib.import_module(name)
    finally:
        del sys.modules[optional]


# Each would stay in the memory of every process, and nothing of it is used there: structlog has rich draw tracebacks,
# PyJWT has cryptography for every algorithm with a public key, which `tokens.keys` loads if there is an identity
# provider. Here, because the first import of a package decides.
_import_without("rich", "structlog")
_import_without("cryptography", "jwt")
