"""What all tests share."""

pytest_plugins = ["servers.fixtures"]
