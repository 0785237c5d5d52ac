DROP TABLE feedsvc.audit;
