"""The change log: the triggers that write it, and its reader."""
