-- What makes access quick to give, and safe to ask for twice: templates for grants, invites for people, idempotency keys.

-- Terms that are agreed once. A grant that is made from one keeps a copy.
CREATE TABLE grant_templates (
    name            TEXT PRIMARY KEY,
    note            TEXT NOT NULL,
    terms           TEXT NOT NULL,               -- JSON, as in grants; targets and logins may be empty
    lasting_seconds BIGINT CHECK (lasting_seconds > 0),
    reason          TEXT,
    created_at      TIMESTAMPTZ NOT NULL,
    changed_at      TIMESTAMPTZ NOT NULL
);
ALTER TABLE grants ADD COLUMN template TEXT;     -- the template's name, as it was
