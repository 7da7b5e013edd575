-- What had been sealed of a recording when its node was lost, as JSON, while the node's journal completes it: should the node be lost
-- once more, this is what counts.

ALTER TABLE recordings ADD COLUMN closed TEXT;
