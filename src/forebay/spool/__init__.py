"""The SQLite database of all events that are not settled.

This room is the owner's: `spool` (thread and queue), `store` (connection and SQL), and the files around them. Damaged
files (`rescue`), commands (`beside`) and the periodic clean-up (`upkeep`) have rooms of their own.
"""
