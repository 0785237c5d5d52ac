-- One message for all instances of a group (`alerts.group`). An incident is open from the message that
-- an alert fires to the one that it is over; its members are the instances for which it fires, as
-- long as they say so.
CREATE TABLE feedsvc.alert_incidents (
    group_name text NOT NULL,
    alert text NOT NULL,
    sender text NOT NULL,
    delivered boolean NOT NULL,
    PRIMARY KEY (group_name, alert)
);
CREATE TABLE feedsvc.alert_members (
    group_name text NOT NULL,
    alert text NOT NULL,
    instance text NOT NULL,
    seen timestamptz NOT NULL,
    PRIMARY KEY (group_name, alert, instance)
);

GRANT SELECT, INSERT, UPDATE, DELETE ON feedsvc.alert_incidents, feedsvc.alert_members
    TO feedsvc_service;

ALTER TABLE feedsvc.alert_incidents ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
ALTER TABLE feedsvc.alert_members ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY service_agrees ON feedsvc.alert_incidents TO feedsvc_service
    USING (true) WITH CHECK (true);
CREATE POLICY service_agrees ON feedsvc.alert_members TO feedsvc_service
    USING (true) WITH CHECK (true);
