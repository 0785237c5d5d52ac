"""Many tenants whose every row names its owner, and readers that look for others' rows."""
