-- Minutes of the oldest hour that is over for so long that its minutes are no longer asked for.
-- $1 interval, $2 int: at most so many.
select id, extract(epoch from date_trunc('hour', at, 'UTC'))::float8 as hour, figures
from feedsvc.performance
where seconds < 3600 and date_trunc('hour', at, 'UTC') = (
    select date_trunc('hour', min(at), 'UTC')
    from feedsvc.performance
    where seconds < 3600 and at < date_trunc('hour', now() - $1::interval, 'UTC')
)
limit $2
