DROP TABLE feedsvc.secret;
