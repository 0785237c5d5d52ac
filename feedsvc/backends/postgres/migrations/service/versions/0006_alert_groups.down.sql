DROP TABLE feedsvc.alert_members, feedsvc.alert_incidents;
