-- The statements of this database that took the most time, as pg_stat_statements keeps them: one of
-- several logins, or that is run within functions too, has an entry for each. $1 text: a login
-- whose statements are left out, or null.
SELECT queryid::text AS id, min(query) AS query, sum(calls)::bigint AS calls,
    sum(total_exec_time) AS total_exec_time,
    sum(total_exec_time) / greatest(sum(calls), 1)::float8 AS mean_exec_time,
    sum(rows)::bigint AS rows, min(pg_get_userbyid(userid)) AS login
FROM pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
WHERE d.datname = current_database() AND s.userid IS DISTINCT FROM to_regrole(quote_ident($1))
    AND query ~* '^\s*(select|with)\M'
GROUP BY queryid
ORDER BY total_exec_time DESC
LIMIT 200
