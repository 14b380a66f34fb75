"""`python -m fakedev`."""

from fakedev.cli import main

main()
