-- The login's own sessions that no service can still be using: idle for longer than pools keep one,
-- in a transaction for longer than PostgreSQL itself allows, or at one query for longer than any
-- pool waits. Those of the process that asks are never among them.
-- $1 text[]: what feedsvc's sessions are called, $2, $3, $4 float8: the seconds, $5 int[]: our own.
with own as (
    select
        a.pid, a.application_name, a.state,
        extract(epoch from clock_timestamp() - a.state_change)::float8 as seconds
    from pg_stat_activity a
    where a.usename = current_user and a.datname = current_database()
        and a.application_name = any ($1::text[])
        and a.pid <> pg_backend_pid() and a.pid <> all ($5::int[])
)
select pid, application_name, state, seconds
from own
where seconds > case
    when state = 'idle' then $2::float8
    when state like 'idle in transaction%' then $3::float8
    else $4::float8
end
order by pid
