"""Text to tokenize, made on the spot: the project's own files, and seeded mixtures of what trips tokenizers."""
import pathlib
import random

ROOT = pathlib.Path(__file__).resolve().parents[2]

SPACES = [" ", "  ", "\t", "\n", "\r\n", "\n\n\n", "\u00a0", "\u2003", "\u3000", "\u2028", "\u0085", "\u180e", "\u200b", "\v", "\f", "   \n  "]
PIECES = [
    "Hello", "don't", "I'LL", "we've", "'S", "it's", "O'Re", "’s", "naïve", "Straße", "ſ", "ıİ", "Ωσς", "Привет", "мир", "שלום", "مرحبا", "नमस्ते",
    "こんにちは", "世界", "東京タワー", "한국어", "ไทย", "中文，标点。", "12345678", "3.14159", "1,000", "٣٤٥", "Ⅷ", "½", "²", "x²+y²=z²",
    "😀", "👩‍👩‍👧‍👦", "🇩🇪", "👍🏽", "🏳️‍🌈", "e\u0301", "a\u0308\u0323", "\u0041\u030a", "ﬁ", "Å", "①", "…", "—", "“q”", "<|endoftext|>", "<|im_start|>",
    "<|im_end|>", "<s>", "<tool>", "[INST]", "word<tool>word", " <tool> ", "def f(x):\n    return x**2  # ok\n", "if (a&&b) { c += 0x1F; }", "http://a.b/c?d=e&f",
    "user@host.org", "C:\\path\\to", "_snake_case_", "CamelCase", "....", "!!??", "---", "\\n", "\x00", "\x7f", "\ufeff", "\ufffd", "\U0001f9ff", "\U00010348",
]


# Characters that were assigned in one version of Unicode or another, of every general category: at their edges tables differ.
NEW = [chr(c) for c in (0x180E, 0x8BF, 0x870, 0x1C8A, 0xA7CB, 0x16D40, 0x105C0, 0x10D50, 0x1E5D0, 0x11BC0, 0x1CCF0, 0x31350, 0x2EBF0, 0x323B0,
                       0x1F774, 0x1FBC5, 0x11F00, 0x11F5A, 0x1E4D0, 0x10EC5, 0x1DF25, 0x1B132, 0x11938, 0x16121, 0x10D6A, 0x0897, 0x1ACF, 0xE0001, 0xF0000, 0x378)]


LONG = ["a" * 20000, "ab" * 10000, " " * 5000, "\n" * 3000, "漢" * 5000, "1" * 5000, "=-" * 4000, "e\u0301" * 3000]


def texts(count=1500, seed=1):
    """The project's own files, and `hostile`."""
    out = []
    for path in sorted(ROOT.rglob("*")):
        if path.suffix in {".cc", ".h", ".py", ".md", ".proto", ".yaml", ".txt"} and "build" not in path.parts and path.stat().st_size < 60000:
            text = path.read_text(errors="replace")
            out += [text[i:i + 2000] for i in range(0, min(len(text), 6000), 2000)]
    return out + hostile(count, seed)


def hostile(count=250, seed=1, long=True):
    """What trips tokenizers, and mixtures of it; `long`: words of thousands of characters too."""
    rng = random.Random(seed)
    out = ["", " ", "\n", "a", "  a", "a  ", "a \n b", "\n\n  x", "x\t\t\ty  "]
    out += PIECES + SPACES + [s + p for s in SPACES for p in PIECES[:8]] + [p + s for s in SPACES for p in PIECES[:8]]
    out += ["".join(NEW), " ".join(NEW), "a".join(NEW)]
    for _ in range(count):
        parts = []
        for _ in range(rng.randrange(1, 30)):
            kind = rng.random()
            if kind < 0.5:
                parts.append(rng.choice(PIECES))
            elif kind < 0.8:
                parts.append(rng.choice(SPACES) * rng.randrange(1, 3))
            elif kind < 0.9:
                parts.append(bytes(rng.randrange(256) for _ in range(rng.randrange(1, 20))).decode(errors="replace"))
            else:
                parts.append("".join(chr(rng.choice([rng.randrange(32, 127), rng.randrange(0xA0, 0x250), rng.randrange(0x4E00, 0x4F00)])) for _ in range(rng.randrange(1, 12))))
        out.append("".join(parts))
    return out + LONG if long else out
