"""`python -m feedsvc`."""

from feedsvc.commands.main import main

main()
