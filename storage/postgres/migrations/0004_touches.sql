-- Which touch a conversion is credited to: the cookie's family of clicks, contacts, and ids of other networks.

-- The first click that the cookie remembered; NULL without a cookie. (`visitor` may be a hash, which credits nobody.)
ALTER TABLE clicks ADD COLUMN first_click_id uuid;
ALTER TABLE impressions ADD COLUMN first_click_id uuid;
-- Partial: a click without a cookie and without a contact writes into neither. A longer contact has no place in an index.
CREATE INDEX clicks_first_click_id ON clicks (first_click_id, click_id) WHERE first_click_id IS NOT NULL;
CREATE INDEX clicks_contact_id ON clicks (contact_id, click_id) WHERE contact_id <> '' AND length(contact_id) <= 256;

-- `named_click_id`: the touch that the conversion named, where it is credited to another.
ALTER TABLE conversions ADD COLUMN contact_id text NOT NULL DEFAULT '';
ALTER TABLE conversions ADD COLUMN named_click_id uuid;
CREATE INDEX conversions_contact_id ON conversions (contact_id, received_at)
    WHERE contact_id <> '' AND length(contact_id) <= 256;
CREATE INDEX conversions_named_click_id ON conversions (named_click_id) WHERE named_click_id IS NOT NULL;

-- Without a click id: one that waits for an external id, or (neither) for a contact. Such rows have node and worker -1,
-- and their receipt in `id_ms`.
ALTER TABLE conversions_waiting ALTER COLUMN click_id DROP NOT NULL;
ALTER TABLE conversions_waiting ADD COLUMN external_id text;
CREATE INDEX conversions_waiting_external_id ON conversions_waiting (external_id) WHERE external_id IS NOT NULL;

-- What `explain` looks for where an id led to no click.
CREATE INDEX conversions_without_click ON conversions (transaction_id) WHERE click_id IS NULL;
