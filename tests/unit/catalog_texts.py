"""What tests of catalog files share: the shortest files, read, refused and stored."""

import pytest

from edge.tracking.catalog import Catalog
from edge.tracking.catalog_document import encode_item
from edge.tracking.catalog_file import CatalogFaults, Document, read_catalog

ADVERTISER = '[[advertisers]]\nid = 1\nname = "A"\n'
OFFER = ADVERTISER + '[[offers]]\nid = 17\nadvertiser_id = 1\nname = "O"\nurl = "https://shop.example.com/"\n'
PARTNER = '[[partners]]\nid = 2\nname = "P"\n'


def read(text: str, existing: Catalog | None = None) -> Document:
    """The document in `text`, applied to an empty catalog unless told otherwise."""
    return read_catalog(text, "catalog.toml", existing or Catalog.empty())


def faults_in(text: str, existing: Catalog | None = None) -> dict[str, str]:
    """The faults by place."""
    with pytest.raises(CatalogFaults) as caught:
        read(text, existing)
    return {fault.where: fault.problem for fault in caught.value.faults}


def stored(text: str) -> Catalog:
    """A catalog that holds what `text` names."""
    return Catalog.empty().changed(1, [(kind, key, encode_item(item)) for kind, key, item in read(text).items()])
