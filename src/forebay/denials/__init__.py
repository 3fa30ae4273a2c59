"""The denial list: whom an operator has shut out."""
