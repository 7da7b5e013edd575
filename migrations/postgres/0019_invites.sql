-- Links by which people give their first key or make a passkey, once. Rows stay: they tell what became of each.

CREATE TABLE invites (
    id           UUID PRIMARY KEY,
    principal_id UUID NOT NULL REFERENCES principals (id),
    token_hash   BYTEA NOT NULL UNIQUE,             -- SHA-256 of what the link holds
    created_at   TIMESTAMPTZ NOT NULL,
    not_after    TIMESTAMPTZ NOT NULL,              -- the first instant at which it opens nothing
    used_at      TIMESTAMPTZ,
    added        TEXT,                              -- what came by it: a key's fingerprint, or a passkey's id
    revoked_at   TIMESTAMPTZ,
    CHECK (created_at < not_after),
    CHECK ((used_at IS NULL) = (added IS NULL))
);
CREATE INDEX invites_by_principal ON invites (principal_id);
