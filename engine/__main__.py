"""``python -m gingham``: the command line."""

from gingham.cli import main

main()
