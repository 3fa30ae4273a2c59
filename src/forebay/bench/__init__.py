"""How much a machine takes with the present settings, and the limit: `forebay bench`."""
