-- What the API keeps beside the keys: the answers to repeated requests.

-- The first answer to a request that carried an Idempotency-Key, for whoever sends it again. Written in the request's
-- own transaction: an answer is here exactly if its effect is.
CREATE TABLE idempotent_answers (
    key_id          int         NOT NULL,
    idempotency_key text        NOT NULL CHECK (length(idempotency_key) BETWEEN 1 AND 255),
    request_hash    bytea       NOT NULL,
    answered_at     timestamptz NOT NULL DEFAULT now(),
    status          int         NOT NULL,
    headers         jsonb       NOT NULL DEFAULT '{}',
    body            bytea       NOT NULL DEFAULT '',
    PRIMARY KEY (key_id, idempotency_key)
);
CREATE INDEX idempotent_answers_answered_at ON idempotent_answers (answered_at);
