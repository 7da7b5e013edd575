-- What a session leaves behind, and what is known of the world outside: manifests, anchors, clocks.

-- What was true when a session was opened, for its manifest.
CREATE TABLE session_facts (
    session_id BLOB PRIMARY KEY REFERENCES sessions (id),
    facts      TEXT NOT NULL                     -- JSON
);

-- Host keys that were presented and accepted, in the order of their first use.
CREATE TABLE session_host_keys (
    session_id BLOB NOT NULL REFERENCES sessions (id),
    target_id  BLOB NOT NULL,
    host_key   TEXT NOT NULL,
    at         TEXT NOT NULL,
    PRIMARY KEY (session_id, target_id, host_key)
);

ALTER TABLE sessions ADD COLUMN sealed_at TEXT;
-- Sessions before this version have no manifest: what it would say of them was not kept.
UPDATE sessions SET sealed_at = ended_at WHERE ended_at IS NOT NULL;
CREATE INDEX sessions_unsealed ON sessions (ended_at) WHERE sealed_at IS NULL AND ended_at IS NOT NULL;

ALTER TABLE recordings ADD COLUMN seal TEXT;     -- JSON, once it has ended: counters, gaps, how it ended

CREATE TABLE manifests (
    session_id BLOB PRIMARY KEY REFERENCES sessions (id),
    bytes      BLOB NOT NULL                    -- canonical; their SHA-256 is in the event session_sealed
);

-- How far each node has brought checkpoints to each place outside.
CREATE TABLE anchors (
    node          TEXT NOT NULL,
    name          TEXT NOT NULL,                 -- file, blobs, syslog, webhook
    size          INTEGER NOT NULL DEFAULT 0,     -- of the last checkpoint that got there
    at            TEXT,                   -- when
    error         TEXT,                          -- why the last try failed; none if it did not
    failing_since TEXT,
    late          BOOLEAN NOT NULL DEFAULT FALSE,
    PRIMARY KEY (node, name)
);

-- The highest time that each node has seen, so that a clock that is set back opens no window again.
CREATE TABLE clock_marks (
    node TEXT PRIMARY KEY,
    at   TEXT NOT NULL
);

CREATE TRIGGER manifests_stay_update BEFORE UPDATE ON manifests BEGIN
    SELECT RAISE(ABORT, 'rows of manifests are never changed or removed');
END;
CREATE TRIGGER manifests_stay_delete BEFORE DELETE ON manifests BEGIN
    SELECT RAISE(ABORT, 'rows of manifests are never changed or removed');
END;
CREATE TRIGGER session_facts_stay_update BEFORE UPDATE ON session_facts BEGIN
    SELECT RAISE(ABORT, 'rows of session_facts are never changed or removed');
END;
CREATE TRIGGER session_facts_stay_delete BEFORE DELETE ON session_facts BEGIN
    SELECT RAISE(ABORT, 'rows of session_facts are never changed or removed');
END;
