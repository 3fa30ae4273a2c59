"""Where events end, one file a sink, behind one small protocol."""
