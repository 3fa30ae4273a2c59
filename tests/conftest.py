"""What all tests share."""

import pytest

# These assert on behalf of tests, and are to say as much when they fail.
pytest.register_assert_rewrite("testbed.traffic.requests", "testbed.traffic.wire")

pytest_plugins = ["testbed.servers.fixtures", "testbed.servers.doors"]
