-- The statements of this database and of other logins that took the most time. {schema}: where
-- pg_stat_statements is. $1 text: the service's login, whose statements are counted by name. Texts that
-- the login may not see come first, so that it is known that there are some.
SELECT s.queryid::text AS id, min(s.query) AS query, sum(s.calls)::bigint AS calls,
    sum(s.total_exec_time)::float8 AS total_ms, sum(s.rows)::bigint AS rows,
    min(r.rolname) AS login
FROM {schema}.pg_stat_statements s
JOIN pg_database d ON d.oid = s.dbid
LEFT JOIN pg_roles r ON r.oid = s.userid
WHERE d.datname = current_database() AND r.rolname IS DISTINCT FROM $1
    AND (s.queryid IS NULL OR s.query ~* '^\s*(select|with|insert|update|delete|merge)\M')
GROUP BY s.queryid
ORDER BY s.queryid IS NULL DESC, total_ms DESC
LIMIT 51
