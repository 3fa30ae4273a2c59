"""The periodic clean-up of a spool: old dead letters are exported and deleted, free pages go back to the disk."""
