"""Commands of the `feedsvc` program."""
