"""The soaked node's catalog: that of the mixed traffic, its partners told of conversions, in as many editions as wanted."""

from benchmarks.mixed_load import catalog_with_goals
from benchmarks.traffic import PARTNERS


def catalog_text(listeners: list[str], edition: int = 0) -> str:
    """`listeners`: origins that the partners are spread over. Editions differ in every offer's name, and nothing else."""
    text = catalog_with_goals()
    for number in range(1, PARTNERS + 1):
        line = f'name = "Partner {number}"\n'
        url = f"{listeners[number % len(listeners)]}/pb?id={{conversion_id}}&status={{status}}"
        text = text.replace(line, f'{line}postback_url = "{url}"\n')
    return text.replace('name = "Offer ', f'name = "Edition {edition} of offer ')
