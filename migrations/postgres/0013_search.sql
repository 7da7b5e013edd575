-- Where what was shown, run and done to files is found again: lines in blocks, and the keys under which a block is found.
CREATE SEQUENCE search_block_ids AS BIGINT;

CREATE TABLE search_blocks (
    id           BIGINT PRIMARY KEY,             -- grows: the newest are looked at first
    recording_id UUID NOT NULL REFERENCES recordings (id),
    kind         INTEGER NOT NULL,               -- 0 command, 1 screen, 2 file
    number       BIGINT NOT NULL,                -- counts the recording's blocks of the kind, or its commands, from 0
    times        BYTEA NOT NULL,                 -- of each line, microseconds since the recording began: 8 bytes, little-endian
    lines        TEXT NOT NULL,                  -- each ends with a line feed
    keys         INTEGER[] NOT NULL,             -- of the lines; negative ones say which kind, and where in the table the block is
    UNIQUE (recording_id, kind, number)
);
-- What waits to be put in its place is looked through by each search, so it is kept short (KiB).
CREATE INDEX search_blocks_by_key ON search_blocks USING gin (keys) WITH (gin_pending_list_limit = 512);

-- How much of a recording is in the index.
CREATE TABLE search_state (
    recording_id UUID PRIMARY KEY REFERENCES recordings (id),
    session_id   UUID NOT NULL REFERENCES sessions (id),
    lines        BIGINT NOT NULL,                -- printed and of files
    bytes        BIGINT NOT NULL,                -- of them
    commands     BIGINT NOT NULL,
    is_cut       BOOLEAN NOT NULL                -- there is more than is in the index
);
CREATE INDEX search_state_by_session ON search_state (session_id);
