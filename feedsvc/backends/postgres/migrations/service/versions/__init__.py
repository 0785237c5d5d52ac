"""The revisions of the line `service`, one file each."""
