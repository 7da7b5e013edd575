-- Requests of the API that are to be done once, however often they are sent: what they were named, and their first answer.

CREATE TABLE idempotency_keys (
    caller      TEXT NOT NULL,                    -- whose word `key` is: a person's id, or `operator-` and a uid
    key         TEXT NOT NULL CHECK (length(key) BETWEEN 1 AND 255),
    attempt     BLOB NOT NULL,                    -- who works on it, or did; what another attempt changes is refused
    claimed_at  TEXT NOT NULL,
    fingerprint BLOB NOT NULL,                    -- of the whole request, keyed: it may hold a password
    roles       TEXT NOT NULL,                    -- the caller's, then
    event_id    BLOB,                             -- the last event of the change, written in its transaction
    finished_at TEXT,                             -- nothing more comes of the attempt
    status      INTEGER,                          -- of the answer that is given again
    body        BLOB,
    PRIMARY KEY (caller, key),
    CHECK ((status IS NULL) = (body IS NULL))
);
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (claimed_at);
CREATE INDEX idempotency_keys_of_caller ON idempotency_keys (caller, claimed_at);
