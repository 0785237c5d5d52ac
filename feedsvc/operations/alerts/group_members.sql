-- The instances for which an alert fires. $1 text: the group, $2 text: the alert, $3 interval: how
-- long an instance counts that no longer says so.
select instance
from feedsvc.alert_members
where group_name = $1 and alert = $2 and seen > now() - $3::interval
