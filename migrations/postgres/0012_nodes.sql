-- Several nodes: who runs, who closes in the books what a dead one left open, and how its journals complete that later.

-- A row for each process of a bastion, from its start on: while one process hands over to the next, a node has two.
CREATE TABLE nodes (
    run        UUID PRIMARY KEY,
    node       TEXT NOT NULL,
    version    TEXT NOT NULL,
    state      TEXT NOT NULL,                    -- open, draining, ended, lost
    started_at TIMESTAMPTZ NOT NULL,
    beats      BIGINT NOT NULL DEFAULT 0,        -- grows while it lives; others watch it by clocks of their own
    beat_at    TIMESTAMPTZ NOT NULL,             -- by its own clock, for people
    closed_by  UUID,                             -- the run that closes what a lost one left open
    closed_at  TIMESTAMPTZ                       -- when that was done
);
CREATE INDEX nodes_by_beat ON nodes (beat_at);

-- Which process serves a session; none in sessions before this version.
ALTER TABLE sessions ADD COLUMN run UUID;

-- Counts who has kept the recording: whoever takes it over raises it, and an earlier keeper can write no more.
ALTER TABLE recordings ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
-- Set while a recording may be completed by its node's journal: where that goes on (JSON, or nothing for the start).
ALTER TABLE recordings ADD COLUMN lost_from TEXT;

-- Segments that were sealed from what a dead node had shipped, until its journals completed the recording.
CREATE TABLE superseded_segments (
    recording_id UUID NOT NULL REFERENCES recordings (id),
    object       TEXT NOT NULL,
    number       INTEGER NOT NULL,
    sha256       BYTEA NOT NULL,
    stored_bytes BIGINT NOT NULL,
    PRIMARY KEY (recording_id, object)
);

-- Manifests of sessions that were completed after they had been sealed; the one with the highest number counts.
CREATE TABLE manifest_amendments (
    session_id UUID NOT NULL REFERENCES sessions (id),
    number     INTEGER NOT NULL,                 -- from 1; the first supersedes the one in `manifests`
    bytes      BYTEA NOT NULL,
    PRIMARY KEY (session_id, number)
);
CREATE TRIGGER manifest_amendments_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON manifest_amendments
    FOR EACH STATEMENT EXECUTE FUNCTION ledger_refuse();

-- Failed logins by address, over all nodes.
CREATE TABLE address_failures (
    address TEXT PRIMARY KEY,                    -- an IPv4 address, or the first address of an IPv6 network of 64 bits
    count   BIGINT NOT NULL,
    since   TIMESTAMPTZ NOT NULL
);
