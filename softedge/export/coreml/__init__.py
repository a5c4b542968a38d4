"""Core ML: program, int8 candidates, interpreter, counting and snippets."""
