"""`python -m rivals`: the command line."""

from rivals.cli import main

main()
