-- Where what was shown, run and done to files is found again: lines in blocks, and the keys under which a block is found.
CREATE TABLE search_blocks (
    id           INTEGER PRIMARY KEY AUTOINCREMENT, -- grows: the newest are looked at first
    recording_id BLOB NOT NULL REFERENCES recordings (id),
    kind         INTEGER NOT NULL,               -- 0 command, 1 screen, 2 file
    number       INTEGER NOT NULL,               -- counts the recording's blocks of the kind, or its commands, from 0
    times        BLOB NOT NULL,                  -- of each line, microseconds since the recording began: 8 bytes, little-endian
    lines        TEXT NOT NULL,                  -- each ends with a line feed
    UNIQUE (recording_id, kind, number)
);
-- A row for each block, under its id: the keys of its lines and its kind, in hex. Nothing else is kept here.
CREATE VIRTUAL TABLE search_keys USING fts5 (keys, content = '', contentless_delete = 1, detail = 'none', tokenize = 'ascii');

-- How much of a recording is in the index.
CREATE TABLE search_state (
    recording_id BLOB PRIMARY KEY REFERENCES recordings (id),
    session_id   BLOB NOT NULL REFERENCES sessions (id),
    lines        INTEGER NOT NULL,               -- printed and of files
    bytes        INTEGER NOT NULL,               -- of them
    commands     INTEGER NOT NULL,
    is_cut       BOOLEAN NOT NULL                -- there is more than is in the index
);
CREATE INDEX search_state_by_session ON search_state (session_id);
