"""The door for events: HTTP, authentication, validation, replies."""
