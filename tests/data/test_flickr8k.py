"""The reader of Flickr8k: small made-up folders, and the real one's counts."""

import pytest

from satnp.data import datasets
from satnp.data.captions import Vocabulary
from satnp.errors import InputError

TOKENS = """\
one.jpg#0\tA dog runs .
one.jpg#1\tThe brown dog is outside .
one.jpg#2\t .
two.jpg#0\tTwo men ( in hats ) sit .
two.jpg.1#0\tThis name is in no split .
"""


def load_split(root, split):
    return datasets.load_split("flickr8k", split, root)


@pytest.fixture
def root(tmp_path):
    """A Flickr8k of two validation photos, without the other splits."""
    photos, text = tmp_path / "Flicker8k_Dataset", tmp_path / "Flickr8k_text"
    photos.mkdir()
    text.mkdir()
    for name in ("one.jpg", "two.jpg"):
        (photos / name).touch()
    (text / "Flickr8k.token.txt").write_text(TOKENS, encoding="utf-8")
    (text / "Flickr_8k.devImages.txt").write_text("two.jpg\none.jpg\n", encoding="utf-8")
    return tmp_path


def test_a_split_needs_only_its_own_files(root):
    split = load_split(root, "val")
    assert split.names == ("two.jpg", "one.jpg")
    assert split.captions == (
        [["two", "men", "-lrb-", "in", "hats", "-rrb-", "sit"]],
        [["a", "dog", "runs"], ["the", "brown", "dog", "is", "outside"]],
    )
    assert split.photos == tuple(root / "Flicker8k_Dataset" / name for name in split.names)
    assert load_split(str(root), "val") == split


def test_windows_line_ends_a_byte_order_mark_and_blank_lines_do_not_matter(root):
    plain = load_split(root, "val")
    for file in (root / "Flickr8k_text").iterdir():
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n \r\n")
    assert load_split(root, "val") == plain


def _break(root, what):
    text = root / "Flickr8k_text"
    if what == "photo":
        (root / "Flicker8k_Dataset" / "one.jpg").unlink()
    elif what == "photos":
        (root / "Flicker8k_Dataset").rename(root / "elsewhere")
    elif what == "captions":
        (text / "Flickr8k.token.txt").write_text(TOKENS.replace("two.jpg#", "three.jpg#"))
    elif what == "form":
        (text / "Flickr8k.token.txt").write_text(TOKENS + "two.jpg#1 no tab\n")
    elif what == "tokens":
        (text / "Flickr8k.token.txt").unlink()
    elif what == "encoding":
        (text / "Flickr8k.token.txt").write_bytes(b"one.jpg#0\t\xff\xfe\n")
    elif what == "empty list":
        (text / "Flickr_8k.devImages.txt").write_text("\n")
    elif what == "twice":
        (text / "Flickr_8k.devImages.txt").write_text("one.jpg\none.jpg\n")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("photo", "1 of the 2 photos .the first is one.jpg. have no file in .*Flicker8k_Dataset"),
        ("photos", "2 of the 2 photos"),
        ("captions", "the first is two.jpg. have no captions"),
        ("form", "line 6 of .*'two.jpg#1 no tab'"),
        ("tokens", "cannot read .*Flickr8k.token.txt"),
        ("encoding", "not UTF-8"),
        ("empty list", "empty or names a photo twice"),
        ("twice", "empty or names a photo twice"),
    ],
)
def test_what_is_missing_or_mangled_is_named(root, what, message):
    _break(root, what)
    with pytest.raises(InputError, match=message):
        load_split(root, "val")


def test_unknown_split_list_and_folder_are_named(root):
    with pytest.raises(InputError, match="no split 'dev'.*train, val, test"):
        load_split(root, "dev")
    with pytest.raises(InputError, match="cannot read .*Flickr_8k.testImages.txt"):
        load_split(root, "test")
    with pytest.raises(InputError, match="no folder .*nowhere"):
        load_split(root / "nowhere", "val")


@pytest.mark.slow
def test_the_real_flickr8k(shared_data):
    train, val = (load_split(shared_data / "flickr8k", split) for split in ("train", "val"))
    assert (len(train.names), len(val.names)) == (6000, 1000)
    assert not set(train.names) & set(val.names)
    assert all(len(captions) == 5 for captions in train.captions + val.captions)
    captions = [caption for photo in train.captions for caption in photo]
    assert len(captions) == 30000 and max(map(len, captions)) == 36
    assert len(Vocabulary.build(captions)) == 2539 + 4
