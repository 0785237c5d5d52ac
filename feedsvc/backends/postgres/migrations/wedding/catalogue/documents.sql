-- query: documents_of_a_couple
-- about: A couple's documents, the newest first.
-- tier: standard
-- as: feed
-- uses: documents_client
-- draw: SELECT tenant_id, client_id FROM wedding.documents WHERE tenant_id = $1 AND client_id IS
--   NOT NULL ORDER BY id LIMIT 1
SELECT * FROM wedding.documents
WHERE tenant_id = $1 AND client_id = $2
ORDER BY uploaded_at DESC, id DESC LIMIT 50;

-- query: documents_by_age
-- about: A page in the middle of a feed, by uploaded_at.
-- tier: standard
-- as: feed
-- uses: documents_newest
-- draw: SELECT tenant_id, uploaded_at, id FROM wedding.documents WHERE tenant_id = $1 ORDER BY
--   uploaded_at, id OFFSET (SELECT count(*) / 2 FROM wedding.documents WHERE tenant_id = $1)
--   LIMIT 1
SELECT * FROM wedding.documents
WHERE tenant_id = $1 AND (uploaded_at, id) > ($2, $3)
ORDER BY uploaded_at, id LIMIT 50;

-- query: documents_that_are_scans
-- about: Scans of a single page, whose words can't be searched: to be typed in.
-- tier: standard
-- as: office
-- uses: documents_metadata
-- draw: SELECT $1::text, '{"scanned": true, "pages": 1}'::jsonb
SELECT * FROM wedding.documents
WHERE tenant_id = $1 AND metadata @> $2
LIMIT 50;

-- query: documents_of_two_tags
-- about: The seventh versions that were signed.
-- tier: standard
-- as: office
-- uses: documents_tags
-- draw: SELECT $1::text, ARRAY['signed', 'v7']
SELECT * FROM wedding.documents
WHERE tenant_id = $1 AND tags @> $2
LIMIT 50;

-- query: documents_to_erase
-- about: Documents in the bin, of all tenants, to be erased for good.
-- tier: standard
-- as: office
-- uses: documents_deleted
-- draw: SELECT min(deleted_at) + interval '30 days' FROM wedding.documents WHERE tenant_id = $1
SELECT id FROM wedding.documents
WHERE deleted_at < $1
ORDER BY deleted_at LIMIT 50;
