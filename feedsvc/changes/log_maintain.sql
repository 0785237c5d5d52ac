-- $1 float8: the seconds that the log is kept, $2 bigint: its most bytes.
SELECT feedsvc.log_maintain(make_interval(secs => $1), $2) AS done, feedsvc.log_life()::text AS epoch
