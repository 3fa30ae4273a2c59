"""The commands' side: reading a spool, and asking its owner, while the owner is at work or without one."""
