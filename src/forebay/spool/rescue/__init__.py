"""What can be saved of a spool whose files are damaged."""
