"""A board reached by ssh."""
