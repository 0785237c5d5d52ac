-- Says that these alerts fire here. $1 text: the group, $2 text[]: the alerts, $3 text: the instance.
insert into feedsvc.alert_members (group_name, alert, instance, seen)
select $1, a.alert, $3, now()
from unnest($2::text[]) as a (alert)
on conflict (group_name, alert, instance) do update set seen = excluded.seen
