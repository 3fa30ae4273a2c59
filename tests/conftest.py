"""What all tests share."""

import pytest

# These assert on behalf of tests, and are to say as much when they fail.
pytest.register_assert_rewrite("traffic.requests", "traffic.wire")

pytest_plugins = ["servers.fixtures", "servers.doors"]
