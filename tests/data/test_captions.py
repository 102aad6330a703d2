"""Tokeniser, vocabulary, padding, and batches of one length."""

import json
import re
from collections import Counter

import numpy as np
import pytest

from satnp.data.captions import END, PAD, SPECIALS, START, UNK, Vocabulary, Words, batches_of_one_length, pad, tokenise
from satnp.errors import InputError

CAPTIONS = [["a", "dog", "runs"], ["a", "cat", "runs"], ["a", "dog"]]


def test_tokenise_drops_punctuation_and_keeps_brackets():
    assert tokenise("Two Dogs -- one ( brown ) , one black-and-white -- do n't bark : ...") == [
        *"two dogs one -lrb- brown -rrb- one black-and-white do n't bark".split()
    ]
    assert tokenise("The man 's `` T-shirt '' says \" { hi } [ ! ] \" ; ' `  -\tU. .\n") == [
        *"the man 's t-shirt says -lcb- hi -rcb- -lsb- -rsb- u.".split()
    ]
    assert tokenise(" . ") == tokenise("") == []


@pytest.mark.parametrize(
    ("sentence", "official"),  # what coco-caption's PTBTokenizer makes of it
    [
        ("A dog runs.", "a dog runs"),
        ("The dog's ball isn't red, it's blue.", "the dog 's ball is n't red it 's blue"),
        ("I can't, won't, cannot, don't.", "i ca n't wo n't can not do n't"),
        ("I'm they're we've he'd she'll", "i 'm they 're we 've he 'd she 'll"),
        ("Two dogs: one brown, one black; both run!", "two dogs one brown one black both run"),
        ("the boys' shirts and the girls' toys.", "the boys shirts and the girls toys"),
        ("a sign that says \"STOP\".", "a sign that says stop"),
        ("'hello' he said 'ok'", "hello he said ok"),
        ("a sign that says “STOP” and ‘GO’ it’s", "a sign that says stop and go it 's"),
        ("dog…cat — a bird – a fish -- x--y", "dog cat a bird a fish x y"),
        ("dog... cat .... two.", "dog cat two"),
        ("A man (in a hat). A woman (left).", "a man -lrb- in a hat -rrb- a woman -lrb- left -rrb-"),
        ("{x} [y] catching?)", "-lcb- x -rcb- -lsb- y -rsb- catching -rrb-"),
        ("It is 12:30: p.m. on Mr. Smith's street.", "it is 12:30 p.m. on mr. smith 's street"),
        ("costs $5.00 or 1,000 dollars, 50% off #5", "costs $ 5.00 or 1,000 dollars 50 % off # 5"),
        ("the U.S. flag. A T.V. in Washington D.C.", "the u.s. flag a t.v. in washington d.c."),
        ("red,white,blue x=y", "red white blue x = y"),
        ("statefarm.com. St. Bernard vs. Dr. cat etc.", "statefarm.com st. bernard vs. dr. cat etc."),
        ("o'clock rock'n'roll 'n roll '80s 80's", "o'clock rock 'n' roll 'n roll '80s 80 's"),
        ("one-way street - a dog -x semi-truck-", "one-way street a dog x semi-truck"),
        ("dog .The hello .world .5 miles", "dog the hello world .5 miles"),
        ("black/white naïve café", "black/white naïve café"),
    ],
)
def test_raw_captions_are_split_as_the_treebank_does(sentence, official):
    assert tokenise(sentence) == official.split()


@pytest.mark.parametrize(
    ("sentence", "words"),
    [
        ("一只狗，在草地上。（棕色）「你好」！？、《书》", "一只狗 在草地上 棕色 你好 书"),
        ("犬　が、走る。", "犬 が 走る"),
        ("¿Dónde está el perro? ¡Aquí!", "dónde está el perro aquí"),
        ("«Ein Hund» – „läuft“ ‚weg‘…", "ein hund läuft weg"),
        ("कुत्ता दौड़ रहा है।", "कुत्ता दौड़ रहा है"),
        ("كلب، يجري؟ نعم؛ هنا۔", "كلب يجري نعم هنا"),
        ("Ένας σκύλος· τρέχει;", "ένας σκύλος τρέχει"),
        ("한국어, 개가 뛴다.", "한국어 개가 뛴다"),
        ("a dog • a cat † ‹a hen›", "a dog a cat a hen"),
        ("· a · 、 dog ·", "a dog"),
        ("black‑and‑white l’homme d＇or it´s", "black-and-white l'homme d'or it 's"),
        ("צ׳ילי Ինչպե՞ս, այո՛", "צ'ילי ինչպես այո"),
        ("col·lecció п’ять пʼять", "col·lecció п'ять п'ять"),
        ("12：30 1，000 ３．5 50％ ＃5 ۳٫۵", "12:30 1,000 ３ 5 50 % # 5 ۳.۵"),
        ("20 °C € 5 😀", "20 °c € 5 😀"),
        ("do\u200bg\ufeff run\u00ads \u2060a\u200d\u200e cat\u202c \u200b ❤\ufe0f", "dog runs a cat ❤"),
        ("a\x00 d\x1bog\x07\u001fruns\u2028away\u00a0now", "a dog runs away now"),
        ("cafe\u0301 CAFÉ A\u030angstro\u0308m \u212bngström", "café café ångström ångström"),
        ("e\u200b\u0301", "é"),
    ],
)
def test_punctuation_of_other_scripts_is_dropped_and_words_are_in_nfc(sentence, words):
    assert tokenise(sentence) == words.split(" ")


def test_words_of_ones_own_are_only_split_at_spaces():
    said = Words("Ein Hund , RENNT . （棕色） don't 1\u00a0000 cafe\u0301 -LRB-")
    assert tokenise(said) == ["Ein", "Hund", ",", "RENNT", ".", "（棕色）", "don't", "1", "000", "café", "-LRB-"]


@pytest.mark.parametrize("word", ["cafe\u0301", "café"])
def test_words_that_unicode_writes_in_two_ways_are_one_word(word):
    assert Vocabulary.build([["café", "cafe\u0301"]] * 3).words == [*SPECIALS, "café"]
    old = Vocabulary([*SPECIALS, "a", word, "dog。"])  # with a word that tokenise does not give any more
    assert old.words == [*SPECIALS, "a", word, "dog。"]
    assert old.encode(["café", "cafe\u0301", "dog。", "dog"]) == [START, 5, 5, 6, UNK, END]
    assert old.decode([4, 5, 6]) == ["a", "café", "dog。"]


def test_an_old_vocabulary_may_have_a_word_in_both_ways():
    old = Vocabulary([*SPECIALS, "café", "cafe\u0301"])
    assert old.encode(["cafe\u0301", "café"]) == [START, 4, 4, END] and old.decode([4, 5]) == ["café", "café"]


# all that the splits change in the captions of Flickr8k's train and validation photos; each is what the official one makes
CHANGED = {
    "We cannot see the face of the girl with the white T-shirt and blue jeans .": ("cannot", "can not"),
    "A little boy splashes into the small pool at the end of a yellow slip n 'slide .": ("'slide", "slide"),
    "A man wearing a white shirt is wearing an at&t headphone at a game .": ("at&t", "at & t"),
    'A man with a Mohawk and a shirt saying " -ependent " faces the camera': ("-ependent", "ependent"),
    "a small girl playing in a little tikes' playground set .": ("tikes'", "tikes"),
    "two young children RIF=ding sleds down the snow .": ("rif=ding", "rif = ding"),
    "An ant 's-eye-view of people walking along a street": ("'s-eye-view", "'s eye-view"),
    'A protester in a cowboy gear holds up a sign that says , " Dont tax me bro! "': ("bro!", "bro"),
}
DROPPED = set("'' ' `` ` . ? ! , : - -- ... ; \"".split())
BRACKETS = {"(": "-lrb-", ")": "-rrb-"}


def flickr8k_sentences(shared_data):
    text = (shared_data / "flickr8k/Flickr8k_text/Flickr8k.token.txt").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines()]


@pytest.mark.slow
def test_the_splits_leave_spaced_text_alone(shared_data):
    changed = {}
    for _, sentence in flickr8k_sentences(shared_data):
        plain = " ".join(BRACKETS.get(word, word) for word in sentence.lower().split() if word not in DROPPED)
        if (words := " ".join(tokenise(sentence))) != plain:
            changed[sentence.strip()] = (plain, words)
    assert set(changed) == set(CHANGED)
    assert all(words == plain.replace(*CHANGED[sentence]) for sentence, (plain, words) in changed.items())


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_without_its_spaces_the_text_has_the_same_words(shared_data, every):
    different = []
    for _, sentence in flickr8k_sentences(shared_data)[::every]:
        raw = re.sub(r" ([.,;:!?)]|'(?!\w))|(\() ", r"\1\2", sentence.strip())
        raw = re.sub(r'" ([^"]*?) ?"', r'"\1"', re.sub(r" (n't|'s)\b", r"\1", raw))
        if tokenise(raw) != tokenise(sentence):
            different.append(raw)
    assert different == ["People are standing in a building that's under construction near 3rd St."][: every == 1]


def test_tokenise_equals_the_official_tokeniser(shared_data):
    gold = json.loads((shared_data / "metrics" / "gold_flickr8k_val_human0_vs_4.json").read_text(encoding="utf-8"))
    wanted = {name: [gold["candidates"][name], *gold["references"][name]] for name in gold["candidates"]}
    compared = 0
    for label, sentence in flickr8k_sentences(shared_data):
        name, k = label.split("#")
        if name in wanted:
            assert " ".join(tokenise(sentence)) == wanted[name][int(k)]
            compared += 1
    assert compared == 5000


def test_vocabulary_is_in_order_of_count_then_of_the_alphabet():
    vocabulary = Vocabulary.build(CAPTIONS, min_count=1)
    assert vocabulary.words == [*SPECIALS, "a", "dog", "runs", "cat"]
    assert Vocabulary.build(CAPTIONS[::-1], min_count=1).words == vocabulary.words
    assert Vocabulary.build(CAPTIONS, min_count=2).words == [*SPECIALS, "a", "dog", "runs"]
    assert Vocabulary.build(CAPTIONS, min_count=1, max_words=2).words == [*SPECIALS, "a", "dog"]
    assert len(Vocabulary.build(CAPTIONS)) == 4


def test_encode_and_decode():
    vocabulary = Vocabulary.build(CAPTIONS, min_count=2)
    ids = vocabulary.encode(["a", "cat", "runs"])
    assert ids == [START, 4, UNK, 6, END]
    assert vocabulary.decode(ids) == ["a", "runs"]
    assert vocabulary.decode(np.array([4, 5, END, 6, PAD])) == ["a", "dog"]
    assert vocabulary.decode([]) == []


def test_a_special_written_in_a_caption_is_an_unknown_word():
    vocabulary = Vocabulary.build([["a", "<end>"]] * 5)
    assert vocabulary.words == [*SPECIALS, "a"]
    assert vocabulary.encode(["<end>", "a"]) == [START, UNK, 4, END]


def test_vocabulary_survives_json():
    vocabulary = Vocabulary.build(CAPTIONS, min_count=1)
    again = Vocabulary(json.loads(json.dumps(vocabulary.words)))
    assert again.words == vocabulary.words and again.encode(["dog"]) == vocabulary.encode(["dog"])


def test_pad():
    captions, mask = pad([[START, 7, END], [START, 5, 6, 8, END]])
    np.testing.assert_array_equal(captions, [[START, 7, END, PAD, PAD], [START, 5, 6, 8, END]])
    np.testing.assert_array_equal(mask, [[1, 1, 0, 0], [1, 1, 1, 1]])
    assert captions.dtype == np.int64 and mask.dtype == np.float32


def test_an_epoch_has_each_caption_once_in_batches_of_one_length(rng):
    lengths = rng.integers(3, 8, size=101)
    batches = batches_of_one_length(lengths, 8, rng)
    assert sorted(np.concatenate(batches)) == list(range(101))
    assert all(len(batch) <= 8 and len(set(lengths[batch])) == 1 for batch in batches)
    assert len(batches) == sum(-(-count // 8) for count in Counter(lengths.tolist()).values())


def test_epochs_differ_and_depend_on_the_generator_alone():
    lengths = np.repeat([3, 4, 5], 20)
    rng = np.random.default_rng(1)
    first, second = (np.concatenate(batches_of_one_length(lengths, 4, rng)) for _ in range(2))
    again = np.concatenate(batches_of_one_length(lengths, 4, np.random.default_rng(1)))
    assert (first == again).all() and (first != second).any()
    assert (np.diff(lengths[first]) < 0).any() and (np.diff(lengths[first]) > 0).any()


def test_each_length_comes_first_in_proportion_to_its_captions(rng):
    lengths = np.repeat([3, 9], [40, 120])
    first = [lengths[batches_of_one_length(lengths, 8, rng)[0][0]] for _ in range(2000)]
    assert abs(np.mean(np.array(first) == 3) - 1 / 4) < 4 * (3 / 16 / 2000) ** 0.5


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Vocabulary(["a", "b"]), "must start with"),
        (lambda: Vocabulary([*SPECIALS, "a", "a"]), "twice"),
        (lambda: Vocabulary([*SPECIALS, None]), "not a string"),
        (lambda: Vocabulary.build(CAPTIONS, min_count=0), "min_count is 0"),
        (lambda: Vocabulary.build(CAPTIONS, max_words=-1), "max_words is -1"),
        (lambda: Vocabulary(SPECIALS).decode([4]), "word id 4"),
        (lambda: Vocabulary(SPECIALS).decode([-1]), "word id -1"),
        (lambda: pad([]), "no caption"),
        (lambda: pad([[START]]), "1 ids"),
        (lambda: pad([[START, -3]]), "word id -3"),
        (lambda: batches_of_one_length([], 4, None), "no caption"),
        (lambda: batches_of_one_length([3], 0, None), "batch size is 0"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
