"""The door for operators: health and metrics."""
