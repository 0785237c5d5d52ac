DROP TABLE feedsvc.performance;
