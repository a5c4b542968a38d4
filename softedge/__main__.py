"""``python -m softedge`` is the ``softedge`` command."""

from softedge.cli import main

if __name__ == "__main__":
    main()
