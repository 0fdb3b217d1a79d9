"""``python -m quide.cli``."""

from quide.cli import main

main()
