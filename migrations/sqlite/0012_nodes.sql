-- Several nodes: who runs, who closes in the books what a dead one left open, and how its journals complete that later.

-- A row for each process of a bastion, from its start on: while one process hands over to the next, a node has two.
CREATE TABLE nodes (
    run        BLOB PRIMARY KEY,
    node       TEXT NOT NULL,
    version    TEXT NOT NULL,
    state      TEXT NOT NULL,                    -- open, draining, ended, lost
    started_at TEXT NOT NULL,
    beats      INTEGER NOT NULL DEFAULT 0,       -- grows while it lives; others watch it by clocks of their own
    beat_at    TEXT NOT NULL,                    -- by its own clock, for people
    closed_by  BLOB,                             -- the run that closes what a lost one left open
    closed_at  TEXT                              -- when that was done
);
CREATE INDEX nodes_by_beat ON nodes (beat_at);

-- Which process serves a session; none in sessions before this version.
ALTER TABLE sessions ADD COLUMN run BLOB;

-- Counts who has kept the recording: whoever takes it over raises it, and an earlier keeper can write no more.
ALTER TABLE recordings ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
-- Set while a recording may be completed by its node's journal: where that goes on (JSON, or nothing for the start).
ALTER TABLE recordings ADD COLUMN lost_from TEXT;

-- Segments that were sealed from what a dead node had shipped, until its journals completed the recording.
CREATE TABLE superseded_segments (
    recording_id BLOB NOT NULL REFERENCES recordings (id),
    object       TEXT NOT NULL,
    number       INTEGER NOT NULL,
    sha256       BLOB NOT NULL,
    stored_bytes INTEGER NOT NULL,
    PRIMARY KEY (recording_id, object)
);

-- Manifests of sessions that were completed after they had been sealed; the one with the highest number counts.
CREATE TABLE manifest_amendments (
    session_id BLOB NOT NULL REFERENCES sessions (id),
    number     INTEGER NOT NULL,                 -- from 1; the first supersedes the one in `manifests`
    bytes      BLOB NOT NULL,
    PRIMARY KEY (session_id, number)
);
CREATE TRIGGER manifest_amendments_stay_update BEFORE UPDATE ON manifest_amendments BEGIN
    SELECT RAISE(ABORT, 'rows of manifest_amendments are never changed or removed');
END;
CREATE TRIGGER manifest_amendments_stay_delete BEFORE DELETE ON manifest_amendments BEGIN
    SELECT RAISE(ABORT, 'rows of manifest_amendments are never changed or removed');
END;

-- Failed logins by address, over all nodes.
CREATE TABLE address_failures (
    address TEXT PRIMARY KEY,                    -- an IPv4 address, or the first address of an IPv6 network of 64 bits
    count   INTEGER NOT NULL,
    since   TEXT NOT NULL
);
