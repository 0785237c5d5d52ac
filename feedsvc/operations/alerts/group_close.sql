-- Closes an incident. $1 text: the group, $2 text: the alert.
delete from feedsvc.alert_incidents
where group_name = $1 and alert = $2
returning delivered
