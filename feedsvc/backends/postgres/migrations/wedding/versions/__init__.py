"""The revisions of the line `wedding`, one file each."""
