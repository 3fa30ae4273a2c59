"""What `forebay doctor` looks at, each in a file of its own; `everything` runs them side by side."""
