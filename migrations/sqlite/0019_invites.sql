-- Links by which people give their first key or make a passkey, once. Rows stay: they tell what became of each.

CREATE TABLE invites (
    id           BLOB PRIMARY KEY,
    principal_id BLOB NOT NULL REFERENCES principals (id),
    token_hash   BLOB NOT NULL UNIQUE,              -- SHA-256 of what the link holds
    created_at   TEXT NOT NULL,
    not_after    TEXT NOT NULL,                     -- the first instant at which it opens nothing
    used_at      TEXT,
    added        TEXT,                              -- what came by it: a key's fingerprint, or a passkey's id
    revoked_at   TEXT,
    CHECK (created_at < not_after),
    CHECK ((used_at IS NULL) = (added IS NULL))
);
CREATE INDEX invites_by_principal ON invites (principal_id);
