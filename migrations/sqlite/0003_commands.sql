-- What was run in sessions, as far as can be told. See docs/operate.md for how sure that is.
CREATE TABLE commands (
    recording_id BLOB NOT NULL REFERENCES recordings (id),
    number       INTEGER NOT NULL,               -- counts the recording's commands from 0
    session_id   BLOB NOT NULL REFERENCES sessions (id),
    at           TEXT NOT NULL,
    text         TEXT NOT NULL,                  -- at most 4 KiB
    is_cut       BOOLEAN NOT NULL,               -- there was more text
    certainty    TEXT NOT NULL,                  -- exec, input, shell_mark, screen
    exit_status  INTEGER,
    duration_us  INTEGER,
    flag         TEXT,                           -- the grant's pattern that flags it
    PRIMARY KEY (recording_id, number)
);
CREATE INDEX commands_by_session ON commands (session_id, at, recording_id, number);

-- Commands that there were, those that are not kept too.
ALTER TABLE recordings ADD COLUMN commands INTEGER NOT NULL DEFAULT 0;
