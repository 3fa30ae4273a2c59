"""Several processes that share the port, and the one that watches over them."""
