"""The way in for events: HTTP, authentication, validation, responses."""
