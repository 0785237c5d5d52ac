DROP FUNCTION feedsvc.refresh_failed(text, text), feedsvc.refresh(text), feedsvc.refresh_due(),
    feedsvc.refresh_inputs(regclass);
DROP TABLE feedsvc.refreshes;
