-- What there is from a point in time on. $1 float8: seconds since 1970.
select id::text, extract(epoch from at)::float8 as at
from feedsvc.performance
where at >= to_timestamp($1)
