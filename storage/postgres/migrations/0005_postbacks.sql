-- What partners are to be told about their conversions. A row is written in the transaction that stores or changes the
-- conversion; it is sent until it is answered with 2xx or given up, and stays for the record.
CREATE TABLE postback_outbox (
    outbox_id        bigint         GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    conversion_id    uuid           NOT NULL,
    event            text           NOT NULL, -- 'decided', a later change, or a replay by hand: once each
    status           text           NOT NULL, -- the conversion's, at that moment, as the money below
    target           int            NOT NULL, -- 0: the partner's postback_url; n: its n-th entry of postbacks
    aff_id           int            NOT NULL,
    offer_id         int            NOT NULL,
    goal_id          int            NOT NULL DEFAULT 0,
    amount           numeric(18, 6) NOT NULL DEFAULT 0,
    payout           numeric(18, 6) NOT NULL DEFAULT 0,
    revenue          numeric(18, 6) NOT NULL DEFAULT 0,
    currency         text           NOT NULL DEFAULT '',
    method           text           NOT NULL DEFAULT 'GET' CHECK (method IN ('GET', 'POST')),
    url              text           NOT NULL, -- with its macros
    host             text           NOT NULL,
    catalog_revision bigint         NOT NULL DEFAULT 0,
    actor            text           NOT NULL DEFAULT '', -- who asked for a replay
    created_at       timestamptz    NOT NULL DEFAULT now(),
    next_attempt_at  timestamptz    NOT NULL DEFAULT now(), -- while it is being sent: when others may take it
    attempts         int            NOT NULL DEFAULT 0,
    leased_by        int, -- the node that is sending it
    state            text           NOT NULL DEFAULT 'pending'
                     CHECK (state IN ('pending', 'delivered', 'dead', 'replayed')),
    finished_at      timestamptz,
    UNIQUE (conversion_id, event, status, target)
) WITH (fillfactor = 70);
CREATE INDEX postback_outbox_due ON postback_outbox (host, next_attempt_at) WHERE state = 'pending';
CREATE INDEX postback_outbox_leased ON postback_outbox (leased_by) WHERE leased_by IS NOT NULL;
CREATE INDEX postback_outbox_dead ON postback_outbox (created_at) WHERE state = 'dead';
CREATE INDEX postback_outbox_created_at ON postback_outbox (created_at);

-- Every attempt whose end was seen. status_code 0: there was no answer, and `error` says why.
CREATE TABLE postback_log (
    log_id        bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    outbox_id     bigint      NOT NULL,
    conversion_id uuid        NOT NULL,
    attempt       int         NOT NULL,
    attempted_at  timestamptz NOT NULL,
    method        text        NOT NULL,
    url           text        NOT NULL,
    status_code   int         NOT NULL DEFAULT 0,
    duration_ms   int         NOT NULL DEFAULT 0,
    error         text        NOT NULL DEFAULT '',
    answer        text        NOT NULL DEFAULT '',
    UNIQUE (outbox_id, attempt)
);
CREATE INDEX postback_log_conversion_id ON postback_log (conversion_id);
CREATE INDEX postback_log_attempted_at ON postback_log (attempted_at);
