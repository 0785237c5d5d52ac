-- Says that an alert is over here. $1 text: the group, $2 text: the alert, $3 text: the instance.
delete from feedsvc.alert_members
where group_name = $1 and alert = $2 and instance = $3
