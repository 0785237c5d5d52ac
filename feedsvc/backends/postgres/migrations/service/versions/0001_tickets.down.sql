DROP TABLE feedsvc.tickets;
-- The role can't be dropped while it is granted anything, and the schema may be an operator's.
REVOKE ALL ON feedsvc.alembic_version FROM feedsvc_service;
REVOKE ALL ON SCHEMA feedsvc FROM feedsvc_service;
