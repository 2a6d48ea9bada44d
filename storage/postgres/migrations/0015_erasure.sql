-- Who was erased, so that no journal brings them back; and who changed what.

-- What happened until `until` and names this value is not stored any more. Only a hash of the value is kept: of contacts and
-- addresses under a key that is not in this database. `prefix`: of an address, the bits of its network (IPv4: plus 96).
-- `id_day`: a click's. `is_derived`: a click that went with its contact or address. `erasure_id` grows with each change.
CREATE TABLE erasures (
    kind       text        NOT NULL CHECK (kind IN ('contact', 'click', 'ip')),
    value_hash bytea       NOT NULL,
    prefix     smallint    NOT NULL DEFAULT 0,
    until      timestamptz NOT NULL,
    id_day     date,
    is_derived boolean     NOT NULL DEFAULT false,
    actor      text        NOT NULL DEFAULT '',
    erasure_id bigint      GENERATED ALWAYS AS IDENTITY UNIQUE,
    PRIMARY KEY (kind, value_hash, prefix)
);
CREATE INDEX erasures_asked_for ON erasures (erasure_id) WHERE NOT is_derived;

-- An erased click takes its other ids along.
CREATE INDEX external_ids_click_id ON external_ids (click_id);

-- What people and commands changed. `detail` never holds a secret, nor what names a visitor.
CREATE TABLE audit_log (
    audit_id bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT now(),
    actor    text        NOT NULL,
    action   text        NOT NULL,
    subject  text        NOT NULL DEFAULT '',
    detail   jsonb       NOT NULL DEFAULT '{}',
    address  text        NOT NULL DEFAULT ''
);
CREATE INDEX audit_log_at ON audit_log (at);

-- Rows are added, and go when they are too old; none is changed.
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'rows of % are never changed', TG_TABLE_NAME USING ERRCODE = 'restrict_violation'; END $$;
CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- When what names a person was taken out of the row; its money, offer, partner, times and status stay.
ALTER TABLE conversions ADD COLUMN erased_at timestamptz;
