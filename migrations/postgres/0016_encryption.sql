-- The public keys of the client's that a recording is encrypted to, as a JSON array; none if it is not.
ALTER TABLE recordings ADD COLUMN recipients TEXT;

-- The keys of encrypted recordings that live, sealed with the master key. They go with the recordings' ends: what the database and the
-- object store hold of them opens with the client's keys alone from then on.
-- It is not in the write-ahead log, in base backups and on replicas; after a crash of the database it is empty, and filled again.
CREATE UNLOGGED TABLE live_keys (
    recording_id UUID PRIMARY KEY REFERENCES recordings (id),
    sealed       BYTEA NOT NULL
);

-- Which keys each node encrypts recordings to; a change is an event.
CREATE TABLE recording_recipients (
    node       TEXT PRIMARY KEY,
    recipients TEXT NOT NULL,        -- a JSON array
    since      TIMESTAMPTZ NOT NULL
);
