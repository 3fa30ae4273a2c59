"""Where events end: one package or file for each sink, behind one protocol (`port`)."""
