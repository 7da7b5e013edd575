-- Who is signed in to the web app, and from where. A row goes when its person signs out, or with the time.

CREATE TABLE web_sessions (
    id           UUID PRIMARY KEY,
    principal_id UUID NOT NULL REFERENCES principals (id),
    token_hash   BYTEA NOT NULL UNIQUE,           -- SHA-256 of what the cookie holds
    address      TEXT NOT NULL,                  -- from where it was begun
    browser      TEXT NOT NULL,                  -- what the browser said of itself then, made printable and short
    created_at   TIMESTAMPTZ NOT NULL,
    last_seen_at TIMESTAMPTZ NOT NULL,
    not_after    TIMESTAMPTZ NOT NULL,                  -- the first instant at which it no longer holds, whatever was done
    CHECK (created_at < not_after)
);
CREATE INDEX web_sessions_by_principal ON web_sessions (principal_id);
CREATE INDEX web_sessions_by_end ON web_sessions (not_after);
