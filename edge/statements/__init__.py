"""Monthly statements of partners and advertisers: built, and written as CSV, as text and as a page to print."""
