-- Sealed envelopes that were made, each a grant that its node can open once. The envelopes themselves are with whoever keeps them.

CREATE TABLE break_glass (
    id              UUID PRIMARY KEY,
    document        BYTEA NOT NULL UNIQUE,          -- SHA-256 of the file
    principal_id    UUID NOT NULL REFERENCES principals (id),
    keys            TEXT NOT NULL,                  -- JSON: fingerprints of the person's keys that are in it
    terms           TEXT NOT NULL,                  -- JSON, as in grants
    lasting_seconds INTEGER NOT NULL CHECK (lasting_seconds > 0),
    node            TEXT NOT NULL,                  -- the one that opens it
    reason          TEXT NOT NULL,
    made_by         TEXT NOT NULL,                  -- JSON
    made_at         TIMESTAMPTZ NOT NULL,
    not_after       TIMESTAMPTZ NOT NULL,           -- the first instant at which it opens nothing
    revoked_at      TIMESTAMPTZ,
    opened_at       TIMESTAMPTZ,
    grant_id        UUID REFERENCES grants (id),    -- what it became
    CHECK (made_at < not_after),
    CHECK ((opened_at IS NULL) = (grant_id IS NULL))
);
CREATE INDEX break_glass_by_end ON break_glass (not_after);
