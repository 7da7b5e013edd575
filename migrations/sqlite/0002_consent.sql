-- Sessions that take somebody's consent besides their grant, and sessions that stand still.

-- The session that a request waits to start; none where access or more time is asked for.
ALTER TABLE access_requests ADD COLUMN session_id BLOB;
CREATE UNIQUE INDEX access_requests_by_session ON access_requests (session_id) WHERE session_id IS NOT NULL;

-- An admin wants the session to stand still, and why; none where nobody does.
ALTER TABLE sessions ADD COLUMN held TEXT;

-- Who follows a session live, or one that waits for its start: so no foreign key to `sessions`.
CREATE TABLE session_watches (
    id           BLOB PRIMARY KEY,
    session_id   BLOB NOT NULL,
    principal_id BLOB REFERENCES principals (id), -- none for the operator on the bastion's own host
    beat         BLOB NOT NULL,                   -- what was last put into the stream, for the watcher to give back
    beat_until   TEXT NOT NULL,                   -- until when it counts, once it is given back
    until        TEXT                             -- until when they count; none before the first beat came back
);
CREATE INDEX session_watches_by_session ON session_watches (session_id);

-- What admins say to whoever is at a session's terminals. The node that serves it takes them off.
CREATE TABLE session_messages (
    id         BLOB PRIMARY KEY,
    session_id BLOB NOT NULL REFERENCES sessions (id),
    text       TEXT NOT NULL
);
CREATE INDEX session_messages_by_session ON session_messages (session_id, id);
