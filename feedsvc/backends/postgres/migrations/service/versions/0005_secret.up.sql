-- The service's own key, for where server.secret is not set and no key to sign tokens with either.
-- It is made here, once; the service reads it and never changes it. Of 366 random bits 256 are kept.
CREATE TABLE feedsvc.secret (
    is_the_only_row boolean PRIMARY KEY DEFAULT true CHECK (is_the_only_row),
    key bytea NOT NULL CHECK (octet_length(key) = 32)
);

INSERT INTO feedsvc.secret (key)
SELECT sha256(convert_to(concat(gen_random_uuid(), gen_random_uuid(), gen_random_uuid()), 'UTF8'));

GRANT SELECT ON feedsvc.secret TO feedsvc_service;

ALTER TABLE feedsvc.secret ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY service_reads ON feedsvc.secret FOR SELECT TO feedsvc_service USING (true);
