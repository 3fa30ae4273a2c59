"""Several processes that share the port, and the supervisor that starts them."""
