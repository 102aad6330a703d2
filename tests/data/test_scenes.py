"""The rendered scenes: true captions, exact boxes, splits that share no triple, and scores worked out by hand."""

from itertools import combinations, permutations

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from satnp.data.scenes import (
    COLOURS,
    HELD_OUT,
    KINDS,
    OBJECTS,
    RELATIONS,
    SIDE,
    SIZES,
    ParsedCaption,
    Scene,
    Thing,
    is_true,
    make_scenes,
    parse,
    points,
    read_objects,
    score,
    write_scene,
)
from satnp.errors import InputError


@pytest.fixture(scope="module")
def splits():
    return {split: make_scenes(count, split, 0) for split, count in [("train", 600), ("val", 200), ("test", 200)]}


@pytest.fixture(scope="module")
def every_scene(splits):
    return sum(splits.values(), [])


@pytest.fixture
def scene():
    """A big red circle in the upper left, a small blue square below and right of it, a big green cross far right."""
    things = (Thing("red", "circle", "big", (4, 2, 22, 20)), Thing("blue", "square", "small", (14, 40, 24, 50)),
              Thing("green", "cross", "big", (44, 20, 62, 38)))
    return Scene("by-hand", np.zeros((SIDE, SIDE, 3), np.uint8), things, ("a red circle above a blue square",) * 5)


def doubled_centre(thing):
    x0, y0, x1, y1 = thing.box
    return x0 + x1, y0 + y1


def triples(scene):
    """Every (kind, relation, kind) that is true of the scene, in any order, by a second reading of the definition."""
    for a, b in permutations(scene.objects, 2):
        (ax, ay), (bx, by) = doubled_centre(a), doubled_centre(b)
        if abs(bx - ax) < abs(by - ay):
            yield a.kind, "above" if ay < by else "below", b.kind
        elif ax < bx:
            yield a.kind, "left of", b.kind


def looking_at(cells, n_cells=64):
    """alphas (T, L) with nearly all weight on one cell a word."""
    return 0.9 * np.eye(n_cells)[list(cells)] + 0.1 / n_cells


def same(one, other):
    return (one.name, one.objects, one.captions) == (other.name, other.objects, other.captions) \
        and np.array_equal(one.image, other.image)


def test_a_scene_depends_on_seed_split_and_its_number_alone(splits):
    for split, scenes in splits.items():
        assert all(map(same, make_scenes(20, split, 0), scenes))
        assert not any(map(same, make_scenes(20, split, 1), scenes))
    assert not any(one.objects == other.objects for one, other in zip(splits["val"], splits["test"], strict=True))
    assert splits["test"][17].name == "test-00017"
    assert make_scenes(0, "test", 0) == []


def test_unknown_split():
    with pytest.raises(InputError, match="'dev'.*train, val, test"):
        make_scenes(1, "dev", 0)


def test_objects_lie_apart_inside_and_in_reading_order(every_scene):
    for scene in every_scene:
        assert len(scene.objects) in (2, 3)
        assert len({thing.kind for thing in scene.objects}) == len(scene.objects)
        for thing in scene.objects:
            x0, y0, x1, y1 = thing.box
            low, high = SIZES[thing.size]
            assert 0 <= x0 and 0 <= y0 and x1 <= SIDE and y1 <= SIDE and low <= x1 - x0 == y1 - y0 <= high
        for a, b in combinations(scene.objects, 2):
            (ax, ay), (bx, by) = doubled_centre(a), doubled_centre(b)
            assert bx - ax >= 2 * 4 and abs((bx - ax) - abs(by - ay)) >= 2 * 3
            assert a.box[2] <= b.box[0] or a.box[3] <= b.box[1] or b.box[3] <= a.box[1]


def test_both_counts_and_all_relations_occur_in_every_split(splits):
    for scenes in splits.values():
        assert {len(scene.objects) for scene in scenes} == {2, 3}
        assert {relation for scene in scenes for _, relation, _ in triples(scene)} == set(RELATIONS)


def test_no_triple_of_val_or_test_occurs_in_training(splits):
    seen = {split: {triple for scene in scenes for triple in triples(scene)} for split, scenes in splits.items()}
    assert seen["train"] and not seen["train"] & (seen["val"] | seen["test"])
    for split, triples_ in seen.items():
        for a, relation, b in triples_:
            assert HELD_OUT[KINDS.index(a), RELATIONS.index(relation), KINDS.index(b)] == (split != "train")


def test_a_fifth_is_held_out_and_only_the_combination_is_new():
    assert HELD_OUT.shape == (24, 3, 24) and abs(HELD_OUT.mean() - 0.2) < 0.001
    trained = ~HELD_OUT.reshape(6, 4, 3, 6, 4)
    for unsaid in range(5):  # any four of colour, shape, relation, colour, shape occur together in training
        assert trained.any(axis=unsaid).all()


def test_every_kind_occurs_in_every_split(splits):
    for split, scenes in splits.items():
        assert {thing.kind for scene in scenes for thing in scene.objects} == set(KINDS), split


def test_the_box_holds_the_colour_and_nothing_else_does(every_scene):
    for scene in every_scene[::5]:
        assert scene.image.shape == (SIDE, SIDE, 3) and scene.image.dtype == np.uint8
        image = scene.image.astype(float)
        outside = np.ones((SIDE, SIDE), bool)
        for thing in scene.objects:
            x0, y0, x1, y1 = thing.box
            outside[y0:y1, x0:x1] = False
            x, y = (x0 + x1) // 2, (y0 + y1) // 2
            np.testing.assert_allclose(image[y - 1:y + 2, x - 1:x + 2].mean((0, 1)), COLOURS[thing.colour], atol=15)
            coloured = np.ptp(image[y0:y1, x0:x1], axis=2) > 75  # a grey pixel's channels differ by noise alone
            assert coloured.any(0).mean() > 0.8 and coloured.any(1).mean() > 0.8
        grey = image[outside]
        np.testing.assert_allclose(grey.mean(0), grey.mean(), atol=2)
        assert 5 < grey.std() < 15 and np.ptp(grey, axis=1).max() < 100


def test_five_different_true_captions_of_the_two_leftmost(every_scene):
    for scene in every_scene:
        assert len(set(scene.captions)) == len(scene.captions) == 5
        for caption in scene.captions:
            first, second = scene.objects[:2]
            assert is_true(caption, scene)
            assert parse(caption).kinds == (first.kind, second.kind)
            assert [caption.split()[t] for t in parse(caption).nouns] == [first.shape, second.shape]


def test_the_vocabulary_is_small(every_scene):
    assert len({word for scene in every_scene for caption in scene.captions for word in caption.split()}) == 23


def test_parse():
    assert parse("there is a big red circle to the left of a blue square") == ParsedCaption(
        (("red", "circle"), ("blue", "square")), ("big", None), "left of", (5, 12))
    assert parse("a pink cross is under a small pink square").relation == "below"


@pytest.mark.parametrize("caption", [
    "", "circle", "a red circle", "a red circle above", "a red circle above a blue square above a green cross",
    "red circle above a blue square", "a circle above a blue square", "a red big circle above a blue square",
    "there is a red circle is above a blue square", "a red circle right of a blue square",
    "a red circle to the above a blue square", "a red circle  above a blue square", "a red circle above a blue square.",
])
def test_parse_refuses_what_is_not_in_the_grammar(caption, scene):
    assert parse(caption) is None and not is_true(caption, scene)


@pytest.mark.parametrize("caption", [
    "a red circle above a blue square", "there is a big red circle over a small blue square",
    "a blue square is below a red circle", "a blue square left of a green cross",
    "a big red circle to the left of a big green cross",
])
def test_is_true_of_any_two_objects(caption, scene):
    assert is_true(caption, scene)


@pytest.mark.parametrize("caption", [
    "a red circle below a blue square",        # the relation is the other one
    "a red circle left of a blue square",      # left by a little, but above by more
    "a green cross left of a red circle",      # the right one first
    "a small red circle above a blue square",  # wrong size
    "a red square above a blue square",        # attributes of two objects mixed
    "a red circle above a yellow square",      # no such object
    "a red circle above a red circle",         # one object twice
])
def test_is_true_refuses(caption, scene):
    assert not is_true(caption, scene)


def test_captions_of_another_scene_are_rarely_true(splits):
    scenes = splits["test"]
    assert np.mean([is_true(a.captions[0], b) for a, b in permutations(scenes, 2)]) < 0.05


def test_points_counts_cells_that_overlap_the_box(scene):
    caption = "a red circle above a blue square"
    elsewhere = 63
    # 8 x 8 cells of 8 px. The circle's box x 4..22, y 2..20 covers rows 0-2 and columns 0-2; the square's box
    # x 14..24, y 40..50 covers rows 5-6 and columns 1-2: it ends where column 3 begins.
    for circle, square, hits in [(0, 41, 2), (18, 50, 2), (3, 41, 1), (0, 43, 1), (24, 33, 0), (41, 0, 0)]:
        alphas = looking_at([elsewhere, elsewhere, circle, elsewhere, elsewhere, elsewhere, square])
        assert points(caption, alphas, (8, 8), scene) == (hits, 2)


def test_points_reads_cells_row_by_row_on_any_grid(scene):
    caption = "a red circle above a blue square"
    # 2 rows x 4 columns: the circle covers row 0, columns 0-1; the square row 1, columns 0-1
    for cells, hits in [((0, 4), 2), ((1, 5), 2), ((2, 6), 0), ((4, 0), 0)]:
        assert points(caption, looking_at([7, 7, cells[0], 7, 7, 7, cells[1], 7], 8), (2, 4), scene) == (hits, 2)


@pytest.mark.parametrize("caption, expected", [
    ("a yellow circle above a blue square", (1, 2)),  # no such object: a miss
    ("circle above a blue square", (1, 2)),           # no colour
    ("red circle blue square", (2, 2)),               # no sentence, yet both nouns are named and looked at
    ("a red a is above", (0, 0)),
    ("", (0, 0)),
])
def test_points_scores_every_shape_word(caption, expected, scene):
    words = caption.split()
    alphas = looking_at([{"circle": 0, "square": 41}.get(word, 63) for word in words]) if words else np.zeros((0, 64))
    assert points(caption, alphas, (8, 8), scene) == expected


@pytest.mark.parametrize("shape", [(6, 64), (7, 49), (7, 8, 8)])
def test_points_refuses_alphas_that_do_not_fit(shape, scene):
    with pytest.raises(InputError, match="one row of alpha per word"):
        points("a red circle above a blue square", np.ones(shape), (8, 8), scene)


def test_score_of_a_captioner_that_looks_rightly_and_of_none(splits):
    scenes = splits["test"]
    captions, alphas = [scene.captions[0] for scene in scenes], []
    for scene, caption in zip(scenes, captions, strict=True):
        cells = np.full(len(caption.split()), 0)
        for t, thing in zip(parse(caption).nouns, scene.objects, strict=False):
            x, y = doubled_centre(thing)
            cells[t] = 8 * (y // 16) + x // 16
        alphas.append(looking_at(cells))
    scores = score(scenes, captions, alphas, (8, 8))
    assert scores["true_captions"] == scores["pointing_accuracy"] == 1
    assert 0 < scores["pointing_uniform"] < scores["pointing_centre"] < 0.5
    assert 0 < scores["constant_caption_true"] < 0.1
    uniform = np.mean([points(caption, looking_at([cell] * 14), (8, 8), scene)[0] / 2
                       for scene, caption in zip(scenes[:10], captions[:10], strict=True) for cell in range(64)])
    assert score(scenes[:10], captions[:10], alphas[:10], (8, 8))["pointing_uniform"] == pytest.approx(uniform)


def test_score_by_hand(scene):
    other = Scene("other", scene.image, (scene.objects[0], Thing("blue", "square", "big", (20, 26, 38, 44))), ())
    captions = ["a red circle above a blue square", "a red circle above a pink square"]
    scores = score([scene, other], captions, [looking_at([63, 63, 0, 63, 63, 63, 41])] * 2, (8, 8))
    # cells: the circle 3 x 3, the blue square 2 x 2; the pink square is not there. None of them is central.
    assert scores == {"true_captions": 0.5, "pointing_accuracy": 0.75, "pointing_uniform": (9 + 4 + 9) / 64 / 4,
                      "pointing_centre": 0, "constant_caption_true": 1}
    captions[1] = "a red circle above a blue square"
    scores = score([scene, other], captions, [np.ones((7, 64))] * 2, (8, 8))
    # of the four central cells, rows and columns 3-4, the big square (x 20..38, y 26..44) overlaps all
    assert scores["pointing_centre"] == 0.25 and scores["true_captions"] == 1
    assert score([other], captions[1:], [np.ones((7, 9))], (3, 3))["pointing_centre"] == 0.5  # one central cell


def test_the_best_constant_caption_is_the_best_of_all_references(splits):
    scenes = splits["test"][:60]
    best = max(np.mean([is_true(caption, scene) for scene in scenes])
               for caption in {caption for scene in scenes for caption in scene.captions})
    alphas = [np.ones((14, 64))] * len(scenes)
    scores = score(scenes, [scene.captions[0] for scene in scenes], alphas, (8, 8))
    assert best <= scores["constant_caption_true"] <= best + 2 / 60


def test_score_without_nouns_or_scenes(scene):
    assert score([scene], [""], [np.ones((1, 64))], (8, 8))["pointing_accuracy"] == 0
    for arguments, said in (
        (([], [], []), "0 scenes and 0 captions: pass at least one scene"),
        (([scene], ["a", "b"], None), "1 scenes and 2 captions: pass at least one scene, and one caption for each"),
        (([scene], ["a"], []), "1 captions and 0 arrays of alphas: pass one array for each caption"),
    ):
        with pytest.raises(InputError, match=said):
            score(*arguments, (8, 8))


def test_the_file_of_a_scene_lists_its_objects(splits, tmp_path):
    for scene in splits["test"][:20]:
        write_scene(tmp_path / "scene.png", scene)
        assert read_objects(tmp_path / "scene.png") == scene.objects
        np.testing.assert_array_equal(Image.open(tmp_path / "scene.png"), scene.image)


RED = '{"colour": "red", "shape": "circle", "size": "big", "box": [4, 2, 22, 20]}'


@pytest.mark.parametrize("text", [
    None, "", "[", "{}", "[1]", "null", f"[{RED}, 3]", RED.replace("4", "-4"), f"[{RED.replace('22', '4')}]",
    f"[{RED.replace('20', '65')}]", f"[{RED.replace('4', '4.5')}]", f"[{RED.replace('[4, ', '[')}]",
    f"[{RED.replace('red', '<b>red')}]", f"[{RED.replace('big', 'huge')}]",
    f"[{RED.replace('colour', 'color')}]",
])  # fmt: skip
def test_the_text_of_another_file_is_no_list_of_objects(tmp_path, text):
    info = PngInfo()
    if text is not None:
        info.add_text(OBJECTS, text)
    Image.new("RGB", (64, 64)).save(tmp_path / "x.png", pnginfo=info)
    assert read_objects(tmp_path / "x.png") == ()


def test_photos_and_files_of_other_kinds_have_no_objects(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "x.jpg")
    (tmp_path / "x.png").write_text("no image")
    assert [read_objects(tmp_path / name) for name in ("x.jpg", "x.png", "none.png")] == [(), (), ()]
