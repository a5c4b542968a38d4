"""The command line: each command parses, calls one function of ``stages`` and prints one result."""
