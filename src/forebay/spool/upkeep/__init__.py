"""The periodic clean-up of a spool."""
