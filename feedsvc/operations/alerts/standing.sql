-- The latest silence of each alert, and the latest of what else became of it on this instance.
-- $1 text: the instance.
select distinct on (alert, event = 'silenced')
    alert, event, value, reason,
    extract(epoch from at)::float8 as at, extract(epoch from until)::float8 as until
from feedsvc.alerts
where event = 'silenced' or instance = $1
order by alert, event = 'silenced', at desc
