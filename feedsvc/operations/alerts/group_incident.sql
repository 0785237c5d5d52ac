-- The open incident of an alert. $1 text: the group, $2 text: the alert.
select sender, delivered from feedsvc.alert_incidents
where group_name = $1 and alert = $2
