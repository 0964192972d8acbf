"""The measurement inside an envelope comes out byte for byte, and nothing a probe sends breaks the reader."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.envelope import DocumentError, decode_json, inner_document, single_line

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1.50,"b":1e2,  "c":"\\u00e9\\/"}',
        b'{"a":NaN,"b":[Infinity,-Infinity]}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"raw\ncontrol"}',
        b'{"a":1,"a":2}',
        '{"name":"Ägäis ☃"}'.encode(),
    ],
    ids=["spacing", "nan", "escaped-surrogate", "raw-surrogate", "control", "duplicate-keys", "unicode"],
)
@pytest.mark.parametrize(
    "form", [b'{"format":"json","content":%s}', b' {"content" : %s , "format": "JSON", "x":[1]} \n']
)
def test_content_is_returned_exactly_as_sent(content: bytes, form: bytes) -> None:
    assert inner_document(form % content) == content


def test_a_bare_measurement_comes_back_whole() -> None:
    assert inner_document(b' {"report_id":"x", "format":"json"}\n') == b'{"report_id":"x", "format":"json"}'


def test_the_last_of_two_contents_wins_in_both_decoders() -> None:
    assert inner_document(b'{"format":"json","content":{"a":1},"content":{"b": 2}}') == b'{"b": 2}'
    assert inner_document(b'{"format":"json","content":{"a":NaN},"content":{"b": NaN}}') == b'{"b": NaN}'


def test_yaml_content_becomes_json() -> None:
    body = json.dumps({"format": "yaml", "content": "report_id: r\nday: 2020-01-02\nraw: !!binary aGk=\n"}).encode()
    assert json.loads(inner_document(body)) == {"report_id": "r", "day": "2020-01-02", "raw": "hi"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "empty_body"),
        (b"  \n", "empty_body"),
        (b"{", "invalid_json"),
        (b"[1]", "not_an_object"),
        (b"null", "not_an_object"),
        (b'\xef\xbb\xbf{"a":1}', "invalid_json"),
        (b'{"a":"\xff"}NaN', "invalid_json"),
        (b'{"format":"zip","content":{}}', "unknown_format"),
        (b'{"format":1,"content":{}}', "unknown_format"),
        (b'{"format":"yaml","content":{}}', "invalid_yaml"),
        (b'{"format":"yaml","content":"a: [1"}', "invalid_yaml"),
        (b'{"format":"yaml","content":"a: &x [1]\\nb: *x"}', "invalid_yaml"),
        (b'{"format":"yaml","content":"!!python/object/apply:os.getcwd []"}', "invalid_yaml"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "too_deep"),
    ],
)
def test_what_is_no_measurement_is_refused_with_a_reason(body: bytes, reason: str) -> None:
    with pytest.raises(DocumentError) as caught:
        inner_document(body)
    assert caught.value.reason == reason
    assert str(caught.value).endswith((".", "?"))


@given(JSON_VALUES)
def test_any_json_value_is_returned_byte_for_byte(value: object) -> None:
    content = json.dumps(value).encode()
    assert inner_document(b'{"format":"json","content":' + content + b"}") == content


@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_a_document_or_a_reason(body: bytes) -> None:
    with contextlib.suppress(DocumentError):
        assert isinstance(inner_document(body), bytes)


@given(JSON_VALUES, st.sampled_from([None, 1, "\t"]))
def test_single_line_keeps_the_document(value: object, indent: str | int | None) -> None:
    document = json.dumps(value, indent=indent).encode()
    line = single_line(document)
    assert b"\n" not in line
    assert b"\r" not in line
    assert json.dumps(decode_json(line)) == json.dumps(decode_json(document))
    if indent is None:
        assert line == document


def test_a_line_end_inside_a_string_becomes_an_escape() -> None:
    assert single_line(b'{"a":"x\ny"}') == b'{"a":"x\\ny"}'


def test_long_numerals_do_not_stall_the_decoder() -> None:
    assert decode_json(b'{"a":' + b"9" * 4000 + b"}") == {"a": 10**4000 - 1}
    with pytest.raises(DocumentError, match="4300 digits"):
        decode_json(b'{"a":' + b"9" * 1_000_000 + b"}")


@pytest.mark.parametrize(
    ("raw", "value"),
    [(b'{"a":007}', {"a": 7}), (b'{"a":1e999}', {"a": float("inf")}), (b'{"a":"x\ty"}', {"a": "x\ty"})],
)
def test_what_probes_in_the_field_send_is_decoded(raw: bytes, value: object) -> None:
    assert decode_json(raw) == value
