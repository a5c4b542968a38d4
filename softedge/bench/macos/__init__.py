"""A Mac running Core ML."""
