-- concurrently
-- A look-up that the office's telephone makes: the couples that gave the number, the newest first.
CREATE INDEX CONCURRENTLY clients_phone ON wedding.clients (tenant_id, phone, id);
