"""What all tests share."""

import pytest

# These assert on behalf of tests, and are to say as much when they fail.
pytest.register_assert_rewrite("testbed.traffic.requests", "testbed.traffic.wire")

pytest_plugins = ["testbed.servers.fixtures", "testbed.servers.doors"]

NAME_CHARS_MAX = 60


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long values by their length: a token is another one in each process, and all have to name tests alike."""
    return f"{argname} of {len(val)}" if isinstance(val, bytes | str) and len(val) > NAME_CHARS_MAX else None
