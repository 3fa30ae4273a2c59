"""`forebay doctor`: `checks` lists every check, each in a file of its own, and `runner` runs them side by side."""
