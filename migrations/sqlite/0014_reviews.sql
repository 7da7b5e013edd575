-- Which sessions are reviewed, what reviewers say, and how much of them they have seen.

-- Whose hand is in a grant: who gave it, approved it, moved its end. None of them reviews sessions under it.
CREATE TABLE grant_hands (
    grant_id     BLOB NOT NULL REFERENCES grants (id),
    principal_id BLOB NOT NULL REFERENCES principals (id),
    PRIMARY KEY (grant_id, principal_id)
);
CREATE INDEX grant_hands_by_principal ON grant_hands (principal_id);
INSERT INTO grant_hands (grant_id, principal_id) SELECT id, created_by FROM grants WHERE created_by IS NOT NULL;

-- One for each session that is at rest.
CREATE TABLE reviews (
    session_id   BLOB PRIMARY KEY REFERENCES sessions (id),
    asked        BOOLEAN NOT NULL,               -- it is to be reviewed
    due_at       TEXT NOT NULL,           -- the first instant at which it is late
    sign_offs    INTEGER NOT NULL,               -- how many it takes
    signed       INTEGER NOT NULL DEFAULT 0,     -- how many there are
    done_at      TEXT,                    -- since when there are enough
    verdict      TEXT,                           -- the gravest so far: as_planned, deviation, incident
    risk         INTEGER NOT NULL,               -- 0 to 100
    reasons      TEXT NOT NULL,                  -- JSON: what speaks for the risk
    choice       TEXT NOT NULL,                  -- JSON: why it is to be reviewed, or is not
    active_us    INTEGER NOT NULL,                -- in which something happened
    overdue_told BOOLEAN NOT NULL DEFAULT FALSE
);
CREATE INDEX reviews_open ON reviews (due_at, risk DESC, session_id) WHERE asked AND done_at IS NULL;

ALTER TABLE sessions ADD COLUMN review_decided BOOLEAN NOT NULL DEFAULT FALSE;
CREATE INDEX sessions_undecided ON sessions (sealed_at) WHERE sealed_at IS NOT NULL AND NOT review_decided;
-- Sessions before this version are nobody's to review; whoever wants may.
INSERT INTO reviews (session_id, asked, due_at, sign_offs, risk, reasons, choice, active_us)
    SELECT id, FALSE, sealed_at, 1, 0, '[]', '{"why":"older"}', 0 FROM sessions WHERE sealed_at IS NOT NULL;
UPDATE sessions SET review_decided = TRUE WHERE sealed_at IS NOT NULL;

-- What reviewers say. Rows are added only; each has an event of its id.
CREATE TABLE review_remarks (
    id           BLOB PRIMARY KEY,
    session_id   BLOB NOT NULL REFERENCES sessions (id),
    principal_id BLOB NOT NULL REFERENCES principals (id),
    name         TEXT NOT NULL,                  -- as it was
    at           TEXT NOT NULL,
    kind         TEXT NOT NULL CHECK (kind IN ('flag', 'note', 'sign_off')),
    words        TEXT NOT NULL,
    recording_id BLOB REFERENCES recordings (id), -- of a flag, where it is at a moment
    moment       TEXT,
    verdict      TEXT,                           -- of a sign-off
    coverage     TEXT,                           -- JSON: how much had been seen by then
    CHECK ((kind = 'sign_off') = (verdict IS NOT NULL) AND (verdict IS NULL) = (coverage IS NULL)),
    CHECK ((recording_id IS NULL) = (moment IS NULL))
);
CREATE INDEX review_remarks_by_session ON review_remarks (session_id, at);
CREATE UNIQUE INDEX review_remarks_once ON review_remarks (session_id, principal_id) WHERE kind = 'sign_off';

-- When something happened in a recording.
CREATE TABLE review_activity (
    recording_id BLOB PRIMARY KEY REFERENCES recordings (id),
    session_id   BLOB NOT NULL REFERENCES sessions (id),
    bursts       TEXT NOT NULL                   -- JSON
);
CREATE INDEX review_activity_by_session ON review_activity (session_id);

-- What of a recording a reviewer has seen.
CREATE TABLE review_seen (
    principal_id BLOB NOT NULL REFERENCES principals (id),
    recording_id BLOB NOT NULL REFERENCES recordings (id),
    session_id   BLOB NOT NULL REFERENCES sessions (id),
    shown        TEXT NOT NULL,                  -- JSON: microseconds, from and to
    read         TEXT NOT NULL,
    PRIMARY KEY (principal_id, recording_id)
);
CREATE INDEX review_seen_by_session ON review_seen (session_id);

-- A reviewer's time, for which they can have seen something: one person looks at one thing at once.
CREATE TABLE review_pace (
    principal_id BLOB PRIMARY KEY REFERENCES principals (id),
    at           TEXT NOT NULL,
    credit_us    INTEGER NOT NULL
);
