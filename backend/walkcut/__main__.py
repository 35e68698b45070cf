"""`python -m walkcut`."""

from walkcut.cli import main

main(prog_name="walkcut")
