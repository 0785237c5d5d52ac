-- Everything from a point in time on. $1 float8: seconds since 1970.
select id, extract(epoch from at)::float8 as at, seconds, figures
from feedsvc.performance
where at >= to_timestamp($1)
