import json
import unicodedata

from edgekd.visible import visible


def test_what_steers_is_shown_and_what_is_read_stays():
    assert visible("\x1b[31mred\x1b[0m \x9b2J") == "\\u001b[31mred\\u001b[0m \\u009b2J"
    assert visible("\r\x00\u202eabc") == "\\u000d\\u0000\\u202eabc"
    kept = "é 中文 नमस्ते 👩‍👩‍👧 \t\n\u00a0"
    assert visible(kept) == kept


def test_no_control_character_is_left():
    everything = "".join(chr(code) for code in range(0x3000) if not 0xD800 <= code < 0xE000)
    left = {c for c in visible(everything) if unicodedata.category(c) == "Cc" or unicodedata.bidirectional(c) in
            ("LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI")}  # fmt: skip
    assert left == {"\t", "\n"}


def test_json_stays_the_same_json():
    text = "\x85\u2028\x7f\u2066"
    assert json.loads(visible(json.dumps(text, ensure_ascii=False))) == text
