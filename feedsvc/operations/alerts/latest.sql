-- The latest events. $1 int: at most so many.
select
    extract(epoch from at)::float8 as at, alert, event, severity, instance, value,
    extract(epoch from until)::float8 as until, reason, subject
from feedsvc.alerts
order by at desc
limit $1
