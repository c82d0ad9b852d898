"""`python -m tdbench` is the command `tdbench`."""

from tdbench.cli import main

main()
