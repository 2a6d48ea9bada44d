-- Journals whose events come through a stream: how far each partition of each is stored, and who drains which partition.
CREATE TABLE stream_positions (
    journal_id   uuid        NOT NULL,
    partition    int         NOT NULL,
    segment      int         NOT NULL DEFAULT 1,
    byte_offset  bigint      NOT NULL DEFAULT 0,
    watermark_ms bigint      NOT NULL DEFAULT 0,
    finished_at  timestamptz,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (journal_id, partition)
) WITH (fillfactor = 50);

-- `stream` is when it was created: sequences count anew in another one.
CREATE TABLE stream_partitions (
    partition    int         PRIMARY KEY,
    stream       text        NOT NULL DEFAULT '',
    sequence     bigint      NOT NULL DEFAULT 0,
    owner        uuid,
    owner_name   text        NOT NULL DEFAULT '',
    leased_until timestamptz NOT NULL DEFAULT '-infinity',
    owned_since  timestamptz,
    takeovers    bigint      NOT NULL DEFAULT 0
) WITH (fillfactor = 50);

CREATE TABLE stream_drains (
    drain_id uuid        PRIMARY KEY,
    name     text        NOT NULL,
    seen_at  timestamptz NOT NULL
) WITH (fillfactor = 50);

-- 0: drained by its own machine. `watermark_ms` of the others is the least of their `stream_positions`, a moment late.
ALTER TABLE journal_positions ADD COLUMN partitions int NOT NULL DEFAULT 0;
