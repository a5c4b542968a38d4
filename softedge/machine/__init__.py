"""What a process knows of the machine it runs on: its memory, its cores, and where its numbers come from."""
