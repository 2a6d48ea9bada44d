-- Files of conversions, costs and contacts that were imported, and which of their rows is which conversion.

-- One run of an import. Its transaction lock says whether it still runs: `state` alone may be that of a killed one.
CREATE TABLE imports (
    import_id     int         GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind          text        NOT NULL CHECK (kind IN ('conversions', 'costs', 'contacts')),
    file_name     text        NOT NULL,
    sha256        text        NOT NULL DEFAULT '', -- of all of the file; '': it was not read to its end
    actor         text        NOT NULL DEFAULT '',
    state         text        NOT NULL DEFAULT 'running' CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    error         text        NOT NULL DEFAULT '',
    started_at    timestamptz NOT NULL DEFAULT now(),
    finished_at   timestamptz,
    size_bytes    bigint      NOT NULL DEFAULT 0,
    read_bytes    bigint      NOT NULL DEFAULT 0,
    rows_stored   bigint      NOT NULL DEFAULT 0,
    rows_known    bigint      NOT NULL DEFAULT 0,
    rows_differ   bigint      NOT NULL DEFAULT 0, -- known, and the file says something else of them
    rows_changed  bigint      NOT NULL DEFAULT 0, -- known, and changed to what the file says
    rows_skipped  bigint      NOT NULL DEFAULT 0, -- nothing to do: rejected by the sender, and not known here
    rows_rejected bigint      NOT NULL DEFAULT 0,
    plan          jsonb       NOT NULL DEFAULT '{}',
    examples      jsonb       NOT NULL DEFAULT '[]'
) WITH (fillfactor = 50);
CREATE INDEX imports_sha256 ON imports (sha256) WHERE sha256 <> '';

-- A row of a file, by what it says, and the conversion (or the change of one) that it turned out to be: read again, it is
-- the same one. Several where a file has several equal rows.
CREATE TABLE imported_rows (
    row_hash uuid NOT NULL,
    event_id uuid NOT NULL,
    PRIMARY KEY (row_hash, event_id)
);
