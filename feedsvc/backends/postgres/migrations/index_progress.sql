-- $1 process that builds an index. A phase counts blocks, or rows, or the transactions it waits for.
SELECT phase,
       CASE WHEN lockers_total > 0 THEN lockers_done WHEN blocks_total > 0 THEN blocks_done
            ELSE tuples_done END AS done,
       CASE WHEN lockers_total > 0 THEN lockers_total WHEN blocks_total > 0 THEN blocks_total
            ELSE tuples_total END AS total,
       (SELECT string_agg(pid::text, ', ') FROM unnest(pg_blocking_pids($1)) AS pid) AS blockers
FROM pg_stat_progress_create_index WHERE pid = $1
