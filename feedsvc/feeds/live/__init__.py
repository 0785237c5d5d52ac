"""Live feeds: one tail a worker reads the change log, and each cohort's events are made once."""
