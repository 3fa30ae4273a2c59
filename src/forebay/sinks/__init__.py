"""The destinations of events: one package or file for each sink, behind one protocol (`port`)."""
