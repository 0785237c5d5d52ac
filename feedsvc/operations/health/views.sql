-- The materialized views that are refreshed, in the order of their names. $1 text[]: those wanted.
select
    relation,
    extract(epoch from clock_timestamp() - refreshed_at)::float8 as age,
    seconds,
    extract(epoch from clock_timestamp() - tried_at)::float8 as tried,
    failures,
    fault,
    every
from feedsvc.refreshes
where relation = any ($1::text[])
order by relation
