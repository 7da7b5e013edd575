-- How far each destination outside has been told of the ledger's events.
CREATE TABLE outbox (
    name          TEXT PRIMARY KEY,              -- as the configuration calls it
    kind          TEXT NOT NULL,
    next_index    BIGINT NOT NULL,               -- the place of the event that is to be told next: all before were taken
    next_part     BIGINT NOT NULL DEFAULT 0,     -- of that event; 0 is the event itself
    sent          BIGINT NOT NULL DEFAULT 0,     -- records that were taken
    dropped       BIGINT NOT NULL DEFAULT 0,     -- records that were refused for good and given up
    at            TIMESTAMPTZ,                   -- when something was taken last
    error         TEXT,                          -- why the last try failed; none if it did not
    failing_since TIMESTAMPTZ,
    retry_at      TIMESTAMPTZ,
    late          BOOLEAN NOT NULL DEFAULT FALSE,
    last_drop     TEXT,                          -- what was given up last, and why
    node          TEXT,                          -- whose turn it is
    holder        TEXT,                          -- the process of that node
    held_until    TIMESTAMPTZ,
    CHECK (next_index >= 0 AND next_part >= 0),
    CHECK ((holder IS NULL) = (held_until IS NULL))
);
