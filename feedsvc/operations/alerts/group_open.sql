-- Makes an instance the one that is to send that an alert fires.
-- $1 text: the group, $2 text: the alert, $3 text: the instance.
insert into feedsvc.alert_incidents (group_name, alert, sender, delivered)
values ($1, $2, $3, false)
on conflict (group_name, alert) do update set sender = excluded.sender, delivered = false
