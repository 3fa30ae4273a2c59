"""The SQLite database that holds every event that is not settled."""
