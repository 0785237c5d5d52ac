"""The sources of an export's rows."""
