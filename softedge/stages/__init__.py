"""One file a command: what it reads, what it does, what it leaves in the run folder."""
