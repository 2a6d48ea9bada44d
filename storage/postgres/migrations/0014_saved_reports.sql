-- Reports that people keep in the console. `query`: the report's own parameters as in a URL; `moving` "": with its dates,
-- else without them, and the period's name (7d, month, …) by the day on which it is opened.
CREATE TABLE saved_reports (
    report_id  int         GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key_id     int         NOT NULL REFERENCES api_keys,
    name       text        NOT NULL CHECK (length(name) BETWEEN 1 AND 100),
    query      text        NOT NULL CHECK (length(query) <= 8192),
    moving     text        NOT NULL DEFAULT '',
    is_shared  boolean     NOT NULL DEFAULT false,
    saved_at   timestamptz NOT NULL DEFAULT now(),
    UNIQUE (key_id, name)
);
