"""A tiny CLIP byte-pair vocabulary in each of its published file forms, and strings encoded by transformers' CLIPTokenizer."""

import json
import re
from collections import Counter

CORPUS = """
a photo of a red circle left of two blue squares above a small green triangle on a white background
the large yellow star is below the purple heart and right of the orange ring near the pink cross
it's a painting of an astronaut riding a horse, they're in the style of van gogh, highly detailed, 8k
three cats sitting on the bench in front of the house while the children aren't looking at the street
naïve café éclairs on the table with cups and saucers; it has been a beautiful morning in the city
"""

# Unicode, emoji, contractions, punctuation, digits, spaces, special tokens in the text, and texts too long for any window.
STRINGS = [
    "", " ", "a", "a photo of a cat", "A Photo Of A CAT", "  many   spaces\tand\nnew lines  ", "red,blue;green", "it's they're we've I'm you'll he'd don't",
    "IT'S THEY'RE WE'VE", "rock'n'roll 'sup", "2 cats 34 dogs 1000000", "3.14159", "10:45pm", "4k, 8k, HDR", "½ ² ³ Ⅳ ٣ 五", "naïve café éclair",
    "nai\u0308ve cafe\u0301", "ÀÉÎÕÜ ẞ ß", "İstanbul ı", "ΑΒΓ Σίσυφος ΟΔΟΣ", "Привет мир", "你好，世界。", "こんにちは", "한국어", "مرحبا بالعالم", "שלום", "हिन्दी",
    "ไทย", "😀", "👩‍👩‍👧‍👦 family", "🇫🇷🇯🇵", "cat😀dog", "✨masterpiece✨", "hello!", "!!!", "wow!!! so! good !", "hello!world", "?!?!", "...", "a...b", "“quoted” ‘single’",
    "(parens) [brackets] {braces}", "<lora:style:0.8>", "((emphasis:1.2))", "under_score and-dash", "C++ & C# @home #tag 50% $5 €5", "http://example.org/a?b=c", "<|startoftext|>",
    "<|endoftext|>", "a <|endoftext|> b", "<|STARTOFTEXT|> shout", "<|ENDOFTEXT|> a <|EndOfText|>", "\r\n\x85\u2028 x", "<|startoftext|>glued<|endoftext|>", "</w>", "a</w>b", "!</w>", "zero\u200bwidth", "non\u00a0breaking\u2003em", "tab\u0009\u000bvt",
    "control\u0001char", "\ufeffbom", "ﬁ ligature Å Å", "supercalifragilisticexpialidocious", "x" * 300, "a red circle left of two blue squares, " * 12, "! " * 90, "é" * 50,
    "the " * 74 + "end", "the " * 75 + "end", "the " * 76 + "end",
]


def byte_alphabet():
    """GPT-2's map from bytes to printable characters, in the order CLIP's vocabulary has them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {b: chr(b) for b in printable}
    for b in range(256):
        if b not in table:
            table[b] = chr(256 + sum(1 for c in table if c not in printable))
    return table


def learn_merges(count):
    table = byte_alphabet()
    words = Counter(re.findall(r"'s|'t|'re|'ve|[^\W\d_]+|\d|[^\s\w]+", CORPUS))
    spelled = {}
    for word, n in words.items():
        letters = [table[b] for b in word.encode()]
        letters[-1] += "</w>"
        spelled[tuple(letters)] = n
    words = spelled
    merges = []
    while len(merges) < count:
        pairs = Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        merged = {}
        for word, n in words.items():
            out, i = [], 0
            while i < len(word):
                if word[i : i + 2] == best:
                    out.append(word[i] + word[i + 1])
                    i += 2
                else:
                    out.append(word[i])
                    i += 1
            merged[tuple(out)] = merged.get(tuple(out), 0) + n
        words = merged
    return merges


def make_tokenizer(folder, published, max_length, pad="<|endoftext|>"):
    """Writes the files and returns the vocabulary. `published`: vocab.json + merges.txt; else tokenizer.json and SD 2's two pad tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    letters = list(byte_alphabet().values())
    merges = learn_merges(120)
    tokens = letters + [c + "</w>" for c in letters] + ["".join(m) for m in merges] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {t: i for i, t in enumerate(tokens)}

    def write(name, value):
        (folder / name).write_text(json.dumps(value, indent=None if "vocab" in name else 2, ensure_ascii=False) + "\n")

    def token(content):
        return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False}

    bos, eos = "<|startoftext|>", "<|endoftext|>"
    write(
        "tokenizer_config.json",
        {
            "add_prefix_space": False,
            "bos_token": {"__type": "AddedToken", **token(bos)},
            "do_lower_case": True,
            "eos_token": {"__type": "AddedToken", **token(eos)},
            "errors": "replace",
            "model_max_length": max_length,
            "name_or_path": "openai/clip-vit-large-patch14",
            "pad_token": pad,
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": {"__type": "AddedToken", **token(eos)},
        },
    )
    write("special_tokens_map.json", {"bos_token": token(bos), "eos_token": token(eos), "pad_token": pad if published else "!", "unk_token": token(eos)})
    if published:
        write("vocab.json", vocabulary)
        (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    else:
        from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

        # The file need not carry the normaliser and splitter: CLIPTokenizer rebuilds them from the vocabulary and merges alone.
        model = models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix="</w>", unk_token=eos)
        tokenizer = Tokenizer(model)
        tokenizer.normalizer = normalizers.Lowercase()
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.add_special_tokens([AddedToken(t, normalized=False) for t in [bos, eos]])
        write("tokenizer.json", json.loads(tokenizer.to_str(pretty=False)))
    return vocabulary


def make_tokenizer_cases(out, folders):
    """`tokenizer.json`: the strings, and for each pipeline the padded ids and the number of tokens cut off."""
    from transformers import CLIPTokenizer

    result = {"strings": STRINGS}
    for folder in folders:
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        length = tokenizer.model_max_length
        padded = tokenizer(STRINGS, padding="max_length", truncation=True, max_length=length).input_ids
        whole = tokenizer(STRINGS).input_ids
        result[f"{folder.parent.name}/{folder.name}"] = {
            "pad_token_id": tokenizer.pad_token_id,
            "ids": padded,
            "dropped": [max(0, len(ids) - length) for ids in whole],
        }
    text = json.dumps(result, ensure_ascii=True, separators=(",", ":")).replace("],[", "],\n[")
    (out / "tokenizer_cases.json").write_text(text + "\n")
