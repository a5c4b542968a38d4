"""int8: one search over the candidates that a format offers, and the tools that make better ones."""
