"""A browser on any phone."""
