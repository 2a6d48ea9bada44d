"""edge/tracking/replies.py: what senders of postbacks parse, byte for byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.tracking.replies import SCRIPT, failure, success
from edge.tracking.request import PIXEL_GIF


def test_success_is_tunes_own_words() -> None:
    """Senders compare these bytes."""
    assert (success(as_json=False).status, success(as_json=False).body) == (200, b"success=true;")
    assert (success(as_json=True).body, success(as_json=True).content_type) == (
        b'{"success":true}',
        "application/json",
    )


@pytest.mark.parametrize(
    ("sent", "echoed"),
    [
        ("1027c8", "1027c8"),
        ("019a-AB", "019a-AB"),
        ("x" * 64, "x" * 64),
        ("x" * 65, ""),
        ("", ""),
        ("<script>", ""),
        ("a b", ""),
        ("a\n", ""),
        ("ü", ""),
        ("a;success=true", ""),
    ],
)
def test_an_id_is_echoed_only_if_it_cannot_be_anything_else(sent: str, echoed: str) -> None:
    """Letters, digits and dashes, at most 64; the status stays 200 in both forms."""
    answer = failure("Invalid Trans. ID", sent, as_json=False)
    assert (answer.status, answer.body.decode()) == (200, f"success=false; err_msg=Invalid Trans. ID #{echoed}.;")
    as_json = failure("Invalid Trans. ID", sent, as_json=True)
    assert as_json.status == 200
    assert json.loads(as_json.body) == {"success": False, "err_msg": f"Invalid Trans. ID #{echoed}."}


@given(st.text())
def test_no_answer_holds_a_second_field_or_line(sent: str) -> None:
    """Whatever was sent, there is one statement of success and no control byte."""
    body = failure("Invalid Goal ID", sent, as_json=False).body
    assert body.count(b";") == 2
    assert body.count(b"success=") == 1
    assert body.decode("ascii").isprintable()


def test_the_pixel_is_a_gif_of_43_bytes() -> None:
    """One transparent pixel: signature, size 1 x 1, trailer."""
    assert len(PIXEL_GIF) == 43
    assert PIXEL_GIF[:10] == b"GIF89a\x01\x00\x01\x00"
    assert PIXEL_GIF[-1:] == b";"
    assert SCRIPT.content_type.startswith("text/javascript")
