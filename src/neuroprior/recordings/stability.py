"""How stable the similarity of images is: over scans, over repeats, and from single trials to averages (Figure 1)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from neuroprior.recordings.given import given_scans, refuse_other
from neuroprior.recordings.population import check_same_pixels
from neuroprior.reliability import snr_weights
from neuroprior.similarity import (
    NoiseCeiling,
    align_matrices,
    centered_cosine,
    noise_ceiling,
    oracle_similarity,
    oracle_trials,
    pair_correlation,
    pair_fluctuation,
    repeat_fluctuation,
    scan_fluctuation,
    single_trial_similarity,
)
from neuroprior.similarity.ceiling import CEILING_IMAGES, CEILING_TRIALS
from neuroprior.similarity.match import Missing, matched_rows
from neuroprior.types import Float32, Float64, InputError, Population, Scan, Shaped, SimilarityTarget, Stimuli
from neuroprior.types.arrays import rows_of

__all__ = ["ScanStability", "growth_with_repeats", "scan_stability"]

SINGLE_INSIDE, SINGLE_APART = "single trial, inside the average", "single trial, apart from the average"
TRUTH, OTHER_SCANS = "truth", "mean of the other scans"
"""What `compared` calls them, beside the names of models."""

_PAIRS = 200_000  # of trials of different images whose fluctuation is kept, drawn at random
_RESAMPLES = 100
_APART = 3  # trials of an image, of which one and the average of the others share none


@dataclass(frozen=True, slots=True, eq=False)
class ScanStability:
    """What Figure 1 shows. Matrices are of the oracle images that all scans share, in one order; pairs are `i < j`.

    `oracle`: Eq. 3. `single`, `others`: Eq. 2 of one trial an image, and Eq. 3 of all other trials, so that the two
    share nothing; the paper sets `single` against `oracle`, which holds it. `over_scans`: Eq. 4 of `oracle`;
    `over_repeats`: Eq. 5 of all scans, each with its own oracle images, as `ceilings` are; of images with 3 trials or
    more, as that of 2 is 0 by definition; `repeats_sd`: its standard deviation in each scan, NaN without. The two
    differ in what is averaged, so beside them stand the matched `single_over_scans` (Eq. 4 of `single`) and
    `over_trials` (single trials, `i != j`).
    What the repeats do not suffice for is None, and `not_computed` says of each what it needs.
    `models`: given matrices of the same images, one of each scan (of its twin, say) or one for all, then repeated.
    `truths`: of simulated scans, what Eq. 2 makes of each one's noise-free responses to these images.
    """

    names: tuple[str, ...]
    stimuli: Stimuli
    oracle: Float32[np.ndarray, "scan image image"]
    single: Float32[np.ndarray, "scan image image"] | None
    others: Float32[np.ndarray, "scan image image"] | None
    over_scans: Float32[np.ndarray, "scan pair"] | None
    single_over_scans: Float32[np.ndarray, "scan pair"] | None
    over_repeats: Float32[np.ndarray, " repeats"] | None
    repeats_sd: Float64[np.ndarray, " scan"]
    over_trials: Float32[np.ndarray, " trials"]
    ceilings: tuple[NoiseCeiling | None, ...]
    models: dict[str, Float32[np.ndarray, "scan image image"]]
    truths: Float32[np.ndarray, "scan image image"] | None
    not_computed: tuple[str, ...] = ()

    def compared(self) -> dict[str, tuple[Float32[np.ndarray, "scan image image"], ...]]:
        """What is set against the recordings, each as (recorded, compared): single trials, every model, the truth.

        `recorded` is Eq. 3, but of "apart from the average", where it is without the trial compared; "mean of the other
        scans" is what other animals say of each one.
        """
        found: dict[str, tuple[Float32[np.ndarray, "scan image image"], ...]] = {}
        if self.single is not None and self.others is not None:
            found[SINGLE_INSIDE] = self.oracle, self.single
            found[SINGLE_APART] = self.others, self.single
        found |= {name: (self.oracle, model) for name, model in self.models.items()}
        if self.truths is not None:
            found[TRUTH] = self.oracle, self.truths
        if len(self.oracle) > 1:
            found[OTHER_SCANS] = self.oracle, (self.oracle.sum(axis=0) - self.oracle) / (len(self.oracle) - 1)
        return found

    def correlations(self) -> dict[str, list[float]]:
        """Pearson's r over pairs, one a scan, of all that is `compared`."""
        return {name: [_r(a, b) for a, b in zip(*pair, strict=True)] for name, pair in self.compared().items()}


def scan_stability(
    scans: Scan | Sequence[Scan],
    models: Mapping[str, SimilarityTarget | Sequence[SimilarityTarget]] | None = None,
    truths: Sequence[Population] | None = None,
    *,
    missing: Missing = "error",
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> ScanStability:
    """Eq. 3 to 5 of the scans' oracle trials, SNR-weighted, with their noise ceilings.

    Two images with 2 trials suffice for Eq. 3 and 4. Eq. 5 needs 3 trials of an image, single trials beside averages 3
    of every image shown, a noise ceiling 3 images with 4: what cannot be had is None, and said in `not_computed`.

    `models`: targets that hold the oracle images, one for all scans or one a scan in their order, under names for the
    figures. `truths`: one a scan, in their order.
    `missing`: "intersection" keeps the images that all scans repeated, "error" asks that these be the same. `seed`: of
    single trials and resamples.
    Raises `InputError` naming the scan without two images repeated, the scans that share too few, or the target that
    lacks images.
    `progress` is told scans done and scans in all.
    """
    scans = given_scans("scan stability", scans)
    reserved = [name for name in models or {} if name in (SINGLE_INSIDE, SINGLE_APART, TRUTH, OTHER_SCANS)]
    if reserved:
        raise InputError(f"scan stability: a model is called {reserved[0]!r}, as what is always compared; rename it")
    of_models: dict[str, list[SimilarityTarget]] = {}
    for name, given_model in (models or {}).items():
        of_models[name] = _targets(f"scan stability, {name}", given_model, len(scans))
    if truths is not None and len(truths) != len(scans):
        raise InputError(f"scan stability: {len(truths)} truths for {len(scans)} scans; give each its own")
    _check_shared(scans, missing)
    oracles, singles, repeats, trials, ceilings = [], [], [], [], []
    rng = np.random.default_rng(seed)
    for k, scan in enumerate(scans):
        if progress is not None:
            progress(k, len(scans))
        given = oracle_trials(scan)
        times = np.unique(given.image_ids, return_counts=True)[1]
        times = times[times > 1]
        single = ceiling = None
        try:
            ids, matrix = oracle_similarity(*given)
            if np.count_nonzero(times >= _APART) > 1:
                single = tuple(map(np.asarray, single_trial_similarity(*given, seed=seed)))
            if np.count_nonzero(times >= CEILING_TRIALS) >= CEILING_IMAGES:
                ceiling = noise_ceiling(*given, seed=seed, n_splits=10, n_resamples=_RESAMPLES)
            # the one pair of an image with two trials differs from its mean, itself, by 0
            repeats.append(np.asarray(repeat_fluctuation(*given))[np.repeat(times > 2, times * (times - 1) // 2)])
            drawn = pair_fluctuation(*given)
        except InputError as error:
            raise InputError(f"scan {scan.name}, oracle trials: {error}") from None
        trials.append(drawn if len(drawn) <= _PAIRS else rng.choice(drawn, _PAIRS, replace=False))
        oracles.append((ids, matrix))
        singles.append(single)
        ceilings.append(ceiling)
    kept, oracle = map(np.asarray, align_matrices(oracles, missing))
    single_all, others, too_few = _apart(singles, kept)
    stimuli = scans[0].stimuli.select(kept)
    for scan in scans:
        check_same_pixels(scan, stimuli)
    several = len(scans) > 1
    return ScanStability(
        names=tuple(scan.name for scan in scans),
        stimuli=stimuli,
        oracle=oracle,
        single=single_all,
        others=others,
        over_scans=np.asarray(scan_fluctuation(oracle)) if several else None,
        single_over_scans=np.asarray(scan_fluctuation(single_all)) if several and single_all is not None else None,
        over_repeats=np.concatenate(repeats) if any(map(len, repeats)) else None,
        repeats_sd=np.array([one.std() if len(one) else np.nan for one in repeats], dtype=np.float64),
        over_trials=np.concatenate(trials),
        ceilings=tuple(ceilings),
        models={
            name: np.broadcast_to(np.stack([_part(name, model, stimuli) for model in each]), oracle.shape)
            for name, each in of_models.items()
        },
        truths=None
        if truths is None
        else np.stack([_true(truth, np.asarray(ids), kept) for truth, (ids, _) in zip(truths, oracles, strict=True)]),
        not_computed=tuple(_not_computed([scan.name for scan in scans], ceilings, repeats, too_few)),
    )


def _targets(what: str, given: object, n_scans: int) -> list[SimilarityTarget]:
    """Return the target of each scan, or one for all, as a list."""
    each: list[SimilarityTarget] = list(given) if isinstance(given, list | tuple) else [given]  # type: ignore[list-item]
    for model in each:
        refuse_other(what, model, SimilarityTarget)
    if len(each) not in (1, n_scans):
        raise InputError(f"{what}: {len(each)} targets for {n_scans} scans; give one for all, or one a scan")
    return each


def _check_shared(scans: Sequence[Scan], missing: Missing) -> None:
    """Raise `InputError` unless the scans repeated the same images, before anything is made of them."""
    repeated = {}
    for k, scan in enumerate(scans):
        ids, counts = np.unique(scan.trial_ids[scan.tier == "oracle"], return_counts=True)
        repeated[f"scan {k} ({scan.name})"] = ids[counts > 1]
    if len(scans) < 2 or not all(len(ids) > 1 for ids in repeated.values()):
        return  # which scan lacks repeats is said where its weights are made
    if not set.intersection(*(set(ids.tolist()) for ids in repeated.values())):
        raise InputError(
            f"scan stability: {' and '.join(repeated)} have no image ids in common among those repeated; compare scans "
            "of the same images, under the same ids"
        )
    mend = "keep what all repeated with missing='intersection' (--intersection on the command line)"
    matched_rows("scan stability", repeated, missing, mend)


def _apart(
    singles: Sequence[tuple[np.ndarray, ...] | None], kept: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None, tuple[int, str] | None]:
    """Single trials, and all others, of the images kept; or None, and a scan and an image with too few trials."""
    found = []
    for scan, one in enumerate(singles):
        if one is None:
            return None, None, (scan, "nearly all images")
        lacking = kept[~np.isin(kept, one[0])]
        if len(lacking):
            return None, None, (scan, repr(str(lacking[0])))
        found.append(one)
    single, others = (align_matrices([(one[0], one[side]) for one in found], "intersection")[1] for side in (1, 2))
    return np.asarray(single), np.asarray(others), None


def _not_computed(
    names: Sequence[str],
    ceilings: Sequence[NoiseCeiling | None],
    repeats: Sequence[np.ndarray],
    too_few: tuple[int, str] | None,
) -> Iterator[str]:
    """What the repeats do not suffice for, and what would."""
    for what, lacking, needs in (
        ("noise ceiling", [one is None for one in ceilings], f"{CEILING_IMAGES} images with {CEILING_TRIALS} trials"),
        ("Eq. 5", [not len(one) for one in repeats], "images with 3 trials: of one pair it is 0 by definition"),
    ):
        of = [name for name, lacks in zip(names, lacking, strict=True) if lacks]
        if of:
            yield f"{what} of {', '.join(of)} (needs {needs})"
    if too_few is not None:
        scan, image = too_few
        yield f"single trials beside averages (need {_APART} trials of an image; {names[scan]} has 2 of {image})"


def growth_with_repeats(
    scan: Scan,
    truth: Float32[np.ndarray, "image image"],
    ids: Shaped[np.ndarray, " image"],
    *,
    seed: int = 0,
    draws: int = 5,
) -> list[tuple[int, float]]:
    """`(T, r)`: the correlation over pairs of Eq. 3, from T random trials of each image, with the true similarity.

    Mean over `draws` of the trials; weights (Eq. 1) are of the trials drawn. One trial has no weights of its own: it is
    Eq. 2 with those of all. `truth` is of the images `ids`, all of them oracle images of the scan.
    """
    responses, image_ids, weights = oracle_trials(scan)
    asked = np.isin(image_ids, ids)
    responses, image_ids = responses[asked], image_ids[asked]
    rng = np.random.default_rng(seed)
    most = int(np.unique(image_ids, return_counts=True)[1].min())
    found = []
    for repeats in range(1, most + 1):
        values = []
        for _ in range(draws if repeats < most else 1):
            shuffled = rng.permutation(len(image_ids))
            shuffled = shuffled[np.argsort(image_ids[shuffled], kind="stable")]
            names, starts, counts = np.unique(image_ids[shuffled], return_index=True, return_counts=True)
            picked = shuffled[np.arange(len(shuffled)) - np.repeat(starts, counts) < repeats]
            if repeats == 1:
                matrix = centered_cosine(responses[picked] * weights.astype(np.float32), image_ids[picked])
            else:
                own = snr_weights(responses[picked], image_ids[picked])
                matrix = np.asarray(oracle_similarity(responses[picked], image_ids[picked], own)[1])
            rows = np.searchsorted(names, ids)
            values.append(_r(matrix[np.ix_(rows, rows)], truth))
        found.append((repeats, float(np.mean(values))))
    return found


def _true(truth: Population, shown: np.ndarray, kept: np.ndarray) -> Float32[np.ndarray, "image image"]:
    """Eq. 2 over all images that the scan repeated, as Eq. 3 is centred on those; then the part that is kept."""
    part = truth.select(shown)
    whole = centered_cosine(part.mean * part.weights, shown)
    rows = rows_of(shown, kept, "scan stability")
    return np.ascontiguousarray(whole[np.ix_(rows, rows)])


def _part(name: str, target: SimilarityTarget, shown: Stimuli) -> Float32[np.ndarray, "image image"]:
    try:
        return np.array(target.select(shown).matrix)
    except InputError as error:
        raise InputError(f"scan stability, {name}: {error}; make it from the oracle images (--tier oracle)") from None


def _r(a: np.ndarray, b: np.ndarray) -> float:
    above = np.triu_indices(len(a), 1)
    return pair_correlation(a[above], b[above])
