"""What commands do with spools beside their owners, or without one."""
