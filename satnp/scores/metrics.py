"""BLEU, ROUGE-L and CIDEr-D with the same values as the coco-caption programs, and METEOR by its official program.

Captions are tokenised sentences, words joined by single spaces (`" ".join(tokenise(sentence))`): another tokeniser can
change the scores by more than a BLEU point. `candidates` has one caption per photo, `references` a list of captions.
"""

import math
import subprocess
from collections import Counter
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from shutil import which
from tempfile import TemporaryFile
from typing import NamedTuple

import numpy as np

from satnp.errors import InputError


class Scores(NamedTuple):
    """Bleu_1 ... Bleu_4, ROUGE_L and CIDEr: {score: value} over all photos, and {photo name: {score: value}}."""

    corpus: dict
    per_photo: dict


class DocumentFrequency(NamedTuple):
    """For each n-gram, the number of photos, of `photos`, with a reference that contains it."""

    counts: Counter
    photos: int


def score(candidates, references):
    """Score the captions {name: sentence} against the references {name: [sentence, ...]} -> Scores.

    Raises: InputError when the two do not name the same photos, or when a photo has no reference.
    """
    unmatched = sorted(candidates.keys() ^ references.keys())
    if unmatched:
        raise InputError(
            f"{len(unmatched)} photos (the first is {unmatched[0]!r}) have only a caption or only references: "
            "give both for the same names"
        )
    candidates, references, names = list(candidates.values()), [references[n] for n in candidates], list(candidates)
    corpus_bleu, bleus = bleu(candidates, references)
    corpus_rouge, rouges = rouge_l(candidates, references)
    corpus_cider, ciders = cider_d(candidates, references)

    keys = ("Bleu_1", "Bleu_2", "Bleu_3", "Bleu_4", "ROUGE_L", "CIDEr")
    rows = np.column_stack([bleus, rouges, ciders]).tolist()
    return Scores(
        corpus=dict(zip(keys, [*corpus_bleu.tolist(), corpus_rouge, corpus_cider], strict=True)),
        per_photo={name: dict(zip(keys, row, strict=True)) for name, row in zip(names, rows, strict=True)},
    )


def bleu(candidates, references):
    """BLEU-n = (Π_{k≤n} correct_k / guessed_k)^(1/n) · min(1, exp(1 - reference length / length)), n = 1..4.

    N candidates, N lists of references -> corpus (4,), per photo (N, 4).
    The count of a candidate's n-gram is clipped to its largest count in one reference. The reference length is that of the
    reference closest in length, the shorter of two equally close. The corpus value sums all counts and lengths first.
    Source: Papineni et al. (2002).
    Pitfall: where no n-gram matched, the value is not 0 but that of coco-caption's two rounding constants (`matched`).
    """
    counts = bleu_counts(candidates, references)
    return bleu_of_counts(*(x.sum(0) for x in counts)), bleu_of_counts(*counts)


def matched(candidates, references):
    """The numbers of right n-grams, n = 1..4, as BLEU counts them: N candidates, N lists of references -> (4,)"""
    return bleu_counts(candidates, references)[0].sum(0)


def bleu_counts(candidates, references):
    """What BLEU adds up: N candidates, N lists of references -> right n-grams (N, 4), n-grams (N, 4), lengths (N,), and
    those of the closest references (N,)"""
    _check(candidates, references)
    correct, guessed, lengths, closest = [], [], [], []
    for candidate, sentences in zip(candidates, references, strict=True):
        grams, allowed = Counter(_ngrams(candidate)), {}
        for sentence in sentences:
            for gram, count in Counter(filter(grams.__contains__, _ngrams(sentence))).items():
                allowed[gram] = max(allowed.get(gram, 0), count)
        hits = [0, 0, 0, 0]
        for gram, count in allowed.items():
            hits[len(gram) - 1] += min(count, grams[gram])
        length = len(candidate.split())
        correct.append(hits)
        guessed.append([max(0, length - k) for k in range(4)])
        lengths.append(length)
        closest.append(min((abs(m - length), m) for m in (len(s.split()) for s in sentences))[1])
    return [np.array(x, float) for x in (correct, guessed, lengths, closest)]


def bleu_of_counts(correct, guessed, length, reference_length):
    """The sums of what bleu_counts gives: correct (..., 4), guessed (..., 4), lengths (...) -> BLEU-1 to BLEU-4 (..., 4)"""
    # coco-caption's two constants: they avoid a division by zero and exact zeros
    precision = np.cumprod((correct + 1e-15) / (guessed + 1e-9), axis=-1) ** (1 / np.arange(1, 5))
    ratio = (length + 1e-15) / (reference_length + 1e-9)
    return precision * np.exp(np.minimum(0, 1 - 1 / ratio))[..., None]


def rouge_l(candidates, references):
    """ROUGE-L = (1 + β²) P R / (R + β² P), β = 1.2; P, R = longest common subsequence / length of caption, reference.

    N candidates, N lists of references -> mean, per photo (N,).
    Source: Lin (2004).
    Differs: P and R are each the maximum over the references, not those of one reference; an empty caption counts as one
    empty word (both as in coco-caption).
    """
    _check(candidates, references)
    scores = []
    for candidate, sentences in zip(candidates, references, strict=True):
        words, others = candidate.split(" "), [sentence.split(" ") for sentence in sentences]
        common = [_longest_common_subsequence(words, other) for other in others]
        p = max(common) / len(words)
        r = max(c / len(other) for c, other in zip(common, others, strict=True))
        scores.append((1 + 1.2**2) * p * r / (r + 1.2**2 * p) if p else 0.0)
    return float(np.mean(scores)), np.array(scores)


def _longest_common_subsequence(a, b):
    row = [0] * (len(b) + 1)
    for x in a:
        diagonal = 0
        for j, y in enumerate(b, 1):
            above = row[j]
            if x == y:
                row[j] = diagonal + 1
            elif row[j - 1] > above:
                row[j] = row[j - 1]
            diagonal = above
    return row[-1]


def document_frequency(references):
    """Count the photos in which each n-gram, n = 1..4, occurs: N lists of references -> DocumentFrequency."""
    counts = Counter()
    for sentences in references:
        counts.update(set().union(*map(_ngrams, sentences)))
    return DocumentFrequency(counts, len(references))


def cider_d(candidates, references, frequency=None):
    """CIDEr-D = 10 · mean over references and n = 1..4 of Σ min(c, r) r / (‖c‖ ‖r‖) · exp(-Δ² / 72).

    N candidates, N lists of references -> mean, per photo (N,).
    c, r: count · (log N - log max(1, document frequency)) of each n-gram; Δ: the difference of the lengths in words.
    `frequency` is a DocumentFrequency, by default that of these references.
    Source: Vedantam et al. (2015).
    Pitfall: N is `frequency.photos`, so with the default a single photo scores 0 and a few photos score low.
    """
    _check(candidates, references)
    frequency = frequency or document_frequency(references)
    log_photos = math.log(frequency.photos)

    def weigh(sentence):
        weights, squares, known = {}, [0.0] * 4, frequency.counts.get
        for gram, count in Counter(_ngrams(sentence)).items():
            weights[gram] = weight = count * (log_photos - math.log(known(gram) or 1))
            squares[len(gram) - 1] += weight * weight
        return weights, [math.sqrt(s) for s in squares], len(sentence.split())

    scores = []
    for candidate, sentences in zip(candidates, references, strict=True):
        c, c_norm, c_length = weigh(candidate)
        total = 0.0
        for sentence in sentences:
            r, r_norm, r_length = weigh(sentence)
            penalty = math.exp(-((c_length - r_length) ** 2) / 72)
            shared = [gram for gram in c if gram in r]
            for n in range(4):
                norms = c_norm[n] * r_norm[n]
                if norms:
                    product = sum(min(c[gram], r[gram]) * r[gram] for gram in shared if len(gram) == n + 1)
                    total += penalty * product / norms
        scores.append(10 * total / (4 * len(sentences)))
    return float(np.mean(scores)), np.array(scores)


def meteor(candidates, references):
    """METEOR 1.5, computed by its official Java program.

    N candidates, N lists of references -> corpus, per photo (N,).
    Source: Denkowski and Lavie (2014).
    Raises: InputError when the program or Java is missing, or the program fails.
    """
    _check(candidates, references)
    java, jar = which("java"), _meteor_jar()
    if not java or not jar:
        raise InputError('METEOR needs `pip install -e ".[meteor]"` and Java')
    command = [java, "-Xmx2G", "-Dfile.encoding=UTF-8", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]
    with TemporaryFile() as complaints:
        try:
            with subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, encoding="utf-8",
                errors="replace",
            ) as program:
                try:
                    return _ask_meteor(program, candidates, references)
                finally:
                    program.kill()
        except (OSError, ValueError):  # the program has ended, or its answer is not a number
            complaints.seek(0)
            said = complaints.read().decode(errors="replace").strip().rpartition("\n")[2] or "nothing"
            raise InputError(f"METEOR's program failed and printed {said!r}; run it by hand: {' '.join(command)}") from None


def _meteor_jar():
    package = find_spec("pycocoevalcap")
    jars = [Path(folder) / "meteor/meteor-1.5.jar" for folder in package.submodule_search_locations] if package else []
    return next((jar for jar in jars if jar.is_file()), None)


def _ask_meteor(program, candidates, references):
    def ask(*fields):
        program.stdin.write(" ||| ".join(fields) + "\n")
        program.stdin.flush()
        return hear()

    def hear():
        line = program.stdout.readline().strip()
        if not line:
            raise ValueError("no answer")
        return line

    pairs = zip(candidates, references, strict=True)
    statistics = [ask("SCORE", *(s.replace("|||", "") for s in (*sentences, said))) for said, sentences in pairs]
    scores = [float(ask("EVAL", *statistics)), *(float(hear()) for _ in statistics)]  # the last is the corpus
    return scores[-1], np.array(scores[:-1])


def _ngrams(sentence):
    """Yield all n-grams, n = 1..4: the words first, then the pairs, ..."""
    words = sentence.split()
    shifted = [words[k:] for k in range(4)]
    return chain.from_iterable(zip(*shifted[:n], strict=False) for n in range(1, 5))


def _check(candidates, references):
    if not candidates or len(candidates) != len(references):
        raise InputError(
            f"there are {len(candidates)} captions and {len(references)} lists of references: "
            "give at least one caption and a list of references for each"
        )
    for candidate, sentences in zip(candidates, references, strict=True):
        if not isinstance(candidate, str):
            raise InputError(f"the caption {candidate!r} is not a string: join its words with spaces")
        if isinstance(sentences, str) or not sentences or not all(isinstance(s, str) for s in sentences):
            raise InputError(
                f"the references of the caption {candidate!r} are {sentences!r}: "
                "give a list of at least one tokenised sentence"
            )
