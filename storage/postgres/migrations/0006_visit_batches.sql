-- On a node with several drains: what each batch added to the memory of visits, for the other drains. A few minutes long.
CREATE TABLE visit_batches (
    node_id   int         NOT NULL,
    seq       bigint      NOT NULL,
    slot      int         NOT NULL,
    visits    bytea       NOT NULL,
    stored_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (node_id, seq)
);
-- Ids do not compress.
ALTER TABLE visit_batches ALTER COLUMN visits SET STORAGE EXTERNAL;
