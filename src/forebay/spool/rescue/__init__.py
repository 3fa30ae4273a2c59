"""Damaged spools: the damage is noticed, and everything that can be read is saved into a new file.

If a spool has no damage, its owner enters only `damage`.
"""
