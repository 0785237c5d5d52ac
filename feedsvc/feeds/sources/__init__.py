"""Where the rows of an export come from."""
