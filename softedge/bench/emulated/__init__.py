"""Emulated processors, for numerics only."""
