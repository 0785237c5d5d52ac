-- Adds rows. Sent twice after an answer that was lost, a row is added once.
-- $1 uuid[], $2 float8[]: seconds since 1970, $3 int[]: seconds, $4 bytea[], item by item.
insert into feedsvc.performance (id, at, seconds, figures)
select r.id, to_timestamp(r.at), r.seconds, r.figures
from unnest($1::uuid[], $2::float8[], $3::int[], $4::bytea[]) as r (id, at, seconds, figures)
on conflict do nothing
