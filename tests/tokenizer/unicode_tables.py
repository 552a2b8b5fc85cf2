"""Writes server/tokenizer/unicode_tables.inc: what kinds of characters Hugging Face's `tokenizers` knows (tests/requirements.txt
says which version). Its parts have tables of several versions of Unicode, older and newer than ICU's and PCRE2's; asked here is
the package itself. compare_test.py holds the file against the package."""
import itertools
import pathlib
import unicodedata

from tokenizers import Regex, normalizers, pre_tokenizers

UNICODE = "14.0.0"
FILE = pathlib.Path(__file__).resolve().parents[2] / "server" / "tokenizer" / "unicode_tables.inc"
# But the surrogates, the private planes and those where nothing is assigned.
ALL = [chr(c) for c in (*range(1, 0xD800), *range(0xE000, 0x40000), *range(0xE0000, 0xF0000))]


def dropped(normalizer):
    """The characters that it leaves out."""
    return [c for c in ALL if normalizer.normalize_str("a" + c + "b") == "ab"]


def cut_at(pre_tokenizer):
    """The characters at which it cuts, or that it drops."""
    found = set()
    for i in range(0, len(ALL), 5000):
        text = "a".join(ALL[i:i + 5000])
        kept = "".join(piece for piece, _ in pre_tokenizer.pre_tokenize_str(text))
        found |= set(text) - set(kept)
    return found


def of_no_script():
    scripts = pre_tokenizers.UnicodeScripts()
    return [c for c in ALL if not scripts.pre_tokenize_str(c)]


def ranges(characters):
    out = []
    for c in sorted(map(ord, characters)):
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return [tuple(r) for r in out]


def table(name, comment, rows, columns):
    items = ["{" + ", ".join(f"0x{v:X}" for v in row) + "}," for row in rows]
    lines, line = [], " "
    for item in items:
        if len(line) + len(item) > 108:
            lines.append(line)
            line = " "
        line += " " + item
    return "\n".join([f"// {comment}", f"constexpr {columns} {name}[] = {{", *lines, line, "};", ""])


def new_characters():
    """(first, last, stand-in): characters that are newer than Unicode 14, as Debian 12's PCRE2 knows it, and an older one that
    expressions see in the same way: of the same category, as many bytes, an ideograph or none, a letter or none."""
    assert unicodedata.unidata_version == UNICODE, "needs a Python with Unicode 14, as 3.11 is"
    kinds = ["Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Cf"]
    han = cut_at(pre_tokenizers.Split(Regex(r"\p{Han}"), "removed"))
    letters = cut_at(pre_tokenizers.Split(Regex("[[:alpha:]]"), "removed"))
    rows = []
    for kind in kinds:
        known = cut_at(pre_tokenizers.Split(Regex(r"\p{" + kind + "}"), "removed"))
        old = [c for c in ALL if unicodedata.category(c) == kind]
        for bytes_, is_han, is_letter in itertools.product((2, 3, 4), (False, True), (False, True)):
            def alike(c):
                return (len(c.encode()), c in han, c in letters) == (bytes_, is_han, is_letter)
            new = [c for c in known if unicodedata.category(c) == "Cn" and alike(c)]
            if new:
                stand_in = next((c for c in old if alike(c) and c in known), None)
                assert stand_in, (kind, bytes_, is_han, is_letter)
                rows += [(first, last, ord(stand_in)) for first, last in ranges(new)]
    return sorted(rows)


def lower():
    """(first, last, lower case of the first): where Unicode 14 has another."""
    rows = []
    for c in ALL:
        low = normalizers.Lowercase().normalize_str(c)
        if len(low) != 1 or low == c.lower():
            continue
        if rows and rows[-1][1] == ord(c) - 1 and ord(low) - ord(c) == rows[-1][2] - rows[-1][0]:
            rows[-1][1] = ord(c)
        else:
            rows.append([ord(c), ord(c), ord(low)])
    return rows


def source():
    bert = normalizers.BertNormalizer
    return "\n".join([
        "// Made by tests/tokenizer/unicode_tables.py of the package `tokenizers`; not to be edited. Sorted.\n",
        table("kMarks", "Combining marks, as StripAccents has them.", ranges(dropped(normalizers.StripAccents())), "Range"),
        table("kNonspacingMarks", "Marks without a width, as BertNormalizer has them.", ranges(dropped(bert(False, False, True, False))), "Range"),
        table("kControls", "What BertNormalizer drops as control characters.", ranges(dropped(bert(True, False, False, False))), "Range"),
        table("kPunctuation", "Punctuation.", ranges(cut_at(pre_tokenizers.Punctuation("removed"))), "Range"),
        table("kNumeric", "Digits and numbers.", ranges(cut_at(pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.Split(Regex(r"^\p{N}$"), "removed")]))), "Range"),
        table("kNoScript", "Of no script for UnicodeScripts.", ranges(of_no_script()), "Range"),
        table("kLower", "Lower case where Unicode 14 has none, or another.", lower(), "Mapped"),
        table("kNewCharacters", "Newer than Unicode 14, and a character that expressions see in the same way.", new_characters(), "Mapped"),
    ])


if __name__ == "__main__":
    FILE.write_text(source(), encoding="utf-8")
