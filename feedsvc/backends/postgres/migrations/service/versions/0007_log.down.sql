DROP FUNCTION feedsvc.log_maintain(interval, bigint), feedsvc.log_invalidation(bytea),
    feedsvc.log_quoted(text), feedsvc.log_life();
DROP TABLE feedsvc.log_epoch, feedsvc.log_feeds, feedsvc.log_floor, feedsvc.log_windows, feedsvc.log;
DROP FUNCTION feedsvc.log_slot();
