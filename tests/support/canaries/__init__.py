"""Many tenants whose every row says whose it is, and readers who look for anybody else's."""
