-- Notes that the message arrived. $1 text: the group, $2 text: the alert, $3 text: its sender.
update feedsvc.alert_incidents set delivered = true
where group_name = $1 and alert = $2 and sender = $3
