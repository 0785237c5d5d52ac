DROP FUNCTION feedsvc.upkeep();
DROP VIEW feedsvc.long_transactions, feedsvc.cache_ratio, feedsvc.table_bloat,
    feedsvc.unindexed_foreign_keys, feedsvc.duplicate_indexes, feedsvc.index_usage;
