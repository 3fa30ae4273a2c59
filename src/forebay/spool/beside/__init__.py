"""For commands: reading a spool, and leaving requests for its owner, beside an owner at work or without one."""
