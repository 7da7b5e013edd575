-- The public keys of the client's that a recording is encrypted to, as a JSON array; none if it is not.
ALTER TABLE recordings ADD COLUMN recipients TEXT;

-- The keys of encrypted recordings that live, sealed with the master key. They go with the recordings' ends: what the database and the
-- object store hold of them opens with the client's keys alone from then on.
CREATE TABLE live_keys (
    recording_id BLOB PRIMARY KEY REFERENCES recordings (id),
    sealed       BLOB NOT NULL
);

-- Which keys each node encrypts recordings to; a change is an event.
CREATE TABLE recording_recipients (
    node       TEXT PRIMARY KEY,
    recipients TEXT NOT NULL,        -- a JSON array
    since      TEXT NOT NULL
);
