-- What was given out of a grant's budgets, over all of its sessions. A session reserves a portion before the bytes go and gives
-- back what it did not spend; what a crash leaves reserved counts as spent.
CREATE TABLE grant_budgets (
    grant_id BLOB NOT NULL REFERENCES grants (id),
    way      TEXT NOT NULL,                      -- upload, download, terminal
    taken    INTEGER NOT NULL,                   -- bytes
    PRIMARY KEY (grant_id, way),
    CHECK (taken >= 0)
);
