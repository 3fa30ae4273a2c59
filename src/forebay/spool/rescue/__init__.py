"""Damaged spools: noticing the damage, and saving into a new file all that can be read of the old one.

An owner without damage enters only `damage`.
"""
