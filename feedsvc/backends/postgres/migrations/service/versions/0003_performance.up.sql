-- What all requests together came to from `at` on, for so many seconds: counts and percentiles by
-- route and dataset, of nobody in particular. `figures` is JSON packed with zstd.
CREATE TABLE feedsvc.performance (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    seconds integer NOT NULL CHECK (seconds > 0),
    figures bytea NOT NULL
);

CREATE INDEX performance_at ON feedsvc.performance (at);

-- Nothing in it is changed: minutes are put together into a new row, and then deleted.
GRANT SELECT, INSERT, DELETE ON feedsvc.performance TO feedsvc_service;
