-- What became of alerts. `event` is firing, resolved or silenced; a silence has an end (`until`), a
-- reason, and who asked for it, and is upon the alert on every instance; the others have the
-- instance that they are of and the figure's value.
CREATE TABLE feedsvc.alerts (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    alert text NOT NULL,
    event text NOT NULL CHECK (event IN ('firing', 'resolved', 'silenced')),
    severity text,
    instance text,
    value double precision,
    until timestamptz,
    reason text,
    tenant text,
    subject text
);

-- For the latest events, of all alerts or of one, and for trimming what is old.
CREATE INDEX alerts_at ON feedsvc.alerts (at);
CREATE INDEX alerts_alert_at ON feedsvc.alerts (alert, at);

GRANT SELECT, INSERT, DELETE ON feedsvc.alerts TO feedsvc_service;
