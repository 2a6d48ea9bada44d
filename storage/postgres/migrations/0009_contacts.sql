-- What contacts' journeys, cohorts and lists are read by.

-- When a contact came: it signed up or, where nobody said when, was first seen. The cohort that it belongs to.
ALTER TABLE contacts ADD COLUMN joined_at timestamptz GENERATED ALWAYS AS (coalesce(signed_up_at, first_seen_at)) STORED;
CREATE INDEX contacts_joined_at ON contacts (coalesce(joined_at, '-infinity'), contact_id);

-- Partial as the clicks' own: a row without a contact, or one that earned nothing, writes into none of these.
CREATE INDEX impressions_contact_id ON impressions (contact_id, click_id)
    WHERE contact_id <> '' AND length(contact_id) <= 256;
CREATE INDEX clicks_contact_revenue ON clicks (contact_id, clicked_at) INCLUDE (currency, revenue)
    WHERE contact_id <> '' AND length(contact_id) <= 256 AND revenue <> 0;
CREATE INDEX impressions_contact_revenue ON impressions (contact_id, clicked_at) INCLUDE (currency, revenue)
    WHERE contact_id <> '' AND length(contact_id) <= 256 AND revenue <> 0;

-- Whom the rows that are here already name.
INSERT INTO contacts (contact_id, first_seen_at, first_click_id)
SELECT DISTINCT ON (contact_id) contact_id, clicked_at, click_id FROM clicks
WHERE contact_id <> '' AND length(contact_id) <= 256 ORDER BY contact_id, click_id
ON CONFLICT (contact_id) DO UPDATE SET
    first_seen_at = least(contacts.first_seen_at, excluded.first_seen_at),
    first_click_id = least(contacts.first_click_id, excluded.first_click_id);
INSERT INTO contacts (contact_id, first_seen_at)
SELECT contact_id, min(at) FROM (
    SELECT contact_id, clicked_at AS at FROM impressions UNION ALL SELECT contact_id, converted_at FROM conversions
) AS seen WHERE contact_id <> '' AND length(contact_id) <= 256 GROUP BY contact_id
ON CONFLICT (contact_id) DO UPDATE SET first_seen_at = least(contacts.first_seen_at, excluded.first_seen_at);
