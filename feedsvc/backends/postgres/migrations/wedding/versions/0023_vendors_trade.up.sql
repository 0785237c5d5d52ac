-- concurrently
-- Phase 2. The best vendors of a trade.
CREATE INDEX CONCURRENTLY vendors_trade
    ON wedding.vendors (tenant_id, trade, rating DESC NULLS LAST, id);
