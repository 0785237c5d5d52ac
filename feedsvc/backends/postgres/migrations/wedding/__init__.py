"""The line `wedding`."""
