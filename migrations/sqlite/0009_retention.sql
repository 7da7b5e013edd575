-- What keeps recordings from deletion, and how they are deleted.

-- One row: changes of holds and deletions happen one after the other.
CREATE TABLE retention_turn (
    id    INTEGER PRIMARY KEY CHECK (id = 1),
    turns INTEGER NOT NULL
);
INSERT INTO retention_turn (id, turns) VALUES (1, 0);

CREATE TABLE legal_holds (
    id             BLOB PRIMARY KEY,
    scope          TEXT NOT NULL CHECK (scope IN ('session', 'grant', 'target')),
    subject        BLOB NOT NULL,
    reason         TEXT NOT NULL,
    set_by         TEXT NOT NULL,                -- JSON
    set_at         TEXT NOT NULL,
    released_by    TEXT,                         -- JSON
    released_at    TEXT,
    release_reason TEXT,
    CHECK ((released_at IS NULL) = (released_by IS NULL) AND (released_at IS NULL) = (release_reason IS NULL))
);
CREATE INDEX legal_holds_in_force ON legal_holds (subject) WHERE released_at IS NULL;

-- Somebody, or the bastion by its rules, wants recordings deleted.
CREATE TABLE deletions (
    id          BLOB PRIMARY KEY,
    reason      TEXT NOT NULL,
    asked_by    TEXT NOT NULL,                   -- JSON
    asked_at    TEXT NOT NULL,
    answered_by TEXT,                            -- JSON
    answered_at TEXT,
    refusal     TEXT,                            -- why not; none if the answer is yes
    CHECK ((answered_at IS NULL) = (answered_by IS NULL)),
    CHECK (refusal IS NULL OR answered_at IS NOT NULL)
);

CREATE TABLE deletion_sessions (
    deletion_id BLOB NOT NULL REFERENCES deletions (id),
    session_id  BLOB NOT NULL REFERENCES sessions (id),
    rule        TEXT,                            -- the retention rule that makes it due, in words
    state       TEXT NOT NULL CHECK (state IN ('asked', 'kept', 'deleting', 'deleted')),
    changed_at  TEXT NOT NULL,
    tombstone   BLOB,                            -- events.id, from 'deleting' on
    tries       INTEGER NOT NULL DEFAULT 0,      -- to remove what is in the object store
    try_at      TEXT,                     -- when to try again
    error       TEXT,                            -- why the last try failed
    PRIMARY KEY (deletion_id, session_id),
    CHECK ((state IN ('deleting', 'deleted')) = (tombstone IS NOT NULL))
);
-- What is asked for is not asked for again until it is answered, and what is deleted never.
CREATE UNIQUE INDEX deletion_sessions_once ON deletion_sessions (session_id) WHERE state <> 'kept';
CREATE INDEX deletion_sessions_under_way ON deletion_sessions (changed_at) WHERE state = 'deleting';
