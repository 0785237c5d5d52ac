DROP TABLE feedsvc.alerts;
