-- The keys of a feed that this snapshot sees written and a former one does not, each with the former
-- rows that the log has of it (docs/changes.md), and a row without a key for what concerns more than
-- single keys: `ops` has it. $1 integer: the feed, $2 bigint[]: scopes, $3 text: the former snapshot,
-- $4 bigint: the most rows of the log that are read, $5 bigint: the most keys.
select
    found.key,
    array_agg(distinct found.old::text) filter (where found.old::text <> 'null') as former,
    string_agg(distinct logged.op::text, '') as ops,
    count(*) as rows
from (
    select l.op, l.key, l.old from feedsvc.log l
    where l.scope = any ($2::bigint[]) and l.feed = $1 and l.xid >= pg_snapshot_xmax($3::text::pg_snapshot)
    union all
    select l.op, l.key, l.old from feedsvc.log l
    where l.scope = any ($2::bigint[]) and l.feed = $1
        and l.xid = any (array(select pg_snapshot_xip($3::text::pg_snapshot)))
    limit $4
) as logged
left join lateral rows from (
    string_to_table(logged.key, ' '), json_array_elements(logged.old::json)
) as found (key, old) on true
group by found.key
order by found.key nulls first
limit $5
