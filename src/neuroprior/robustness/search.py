"""The smallest perturbation of each sample that any attack, setting and repetition finds, and that holds."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import nn

from neuroprior.robustness.attacks.attempt import Attempt
from neuroprior.robustness.attacks.boundary import Boundary
from neuroprior.robustness.attacks.geometry import Norm
from neuroprior.robustness.attacks.registry import Attack, chosen
from neuroprior.robustness.audit import audit
from neuroprior.robustness.fingerprint import answers, fingerprint, image_digest
from neuroprior.robustness.images import Images, Labels, checked_images
from neuroprior.robustness.ledger import Ledger
from neuroprior.robustness.ledger_file import LedgerFile
from neuroprior.robustness.verified import verified_lengths
from neuroprior.robustness.victim import Victim, margin
from neuroprior.types import AttackRecord, AttackStatus, InputError

_EXHAUSTIVE_CHUNK = 16  # samples searched together, and written together: what may be lost when it is stopped
_FUTILE = 2  # settings of one attack that in a row bring nothing nearer: its other settings are left out
_NO_LIMIT = 2**62


@dataclass(frozen=True, slots=True)
class Cost:
    """What a search may cost at most: every setting in full, on every sample."""

    attempts: int
    gradients: int
    seconds: float


def minimal_perturbations(
    model: nn.Module | Victim,
    images: Images,
    labels: Labels,
    *,
    attacks: Sequence[str | Attack],
    norm: Norm,
    repetitions: int = 1,
    exhaustive: bool = False,
    seed: int = 0,
    ids: Sequence[str] | None = None,
    name: str = "model",
    ledger: str | Path | None = None,
    max_gradients: int | None = None,
    max_seconds: float | int | None = None,
    keep_adversarials: bool = False,
    progress: Callable[[float, str], None] | None = None,
) -> Ledger:
    """min |x' - x|_p over verified x' in [0, 1] that the network misclassifies; untargeted, against the true label.

    `attacks`: names (every norm: `brendel_bethge`, `fmn`; l2 and linf: `pgd`, `apgd`, `boundary`; linf: `adam_pgd`; l2:
    `cw`, `ddn`; l1: `sparse_fool`, `jsma`, `apgd`; l0: `jsma`, `sigma_zero`), each with its settings, or settings of
    your own, as `PGD(step=0.1, steps=30)`. They run in this order, each `repetitions` times;
    later ones start from what earlier ones found, ask only for less, and are left out for a sample once two settings of
    the same attack in a row brought nothing nearer. `exhaustive`: the paper's full grids, every attempt by itself.

    Lengths are of pixels in [0, 1]. Random draws depend on an image's pixels and `seed` alone, so a sample's result
    does not depend on its company. A misclassified sample scores 0, one that nothing fools inf. What is found counts
    once it was checked: finite, in [0, 1], misclassified at another batch size, its length recomputed in float64.

    `ledger`: a file (`attacks.parquet`) that rows go to as samples are done; the same call goes on where it stopped,
    and with more images adds those. `max_gradients`: for each sample (`boundary` asks none).
    `max_seconds`: no further samples are begun after that (their time is foreseen from those before), which leaves the
    ledger unfinished. `ids`: names of the samples, by default their row; those asked for come back, in their order,
    whatever else the file holds. `keep_adversarials`: the ledger holds each sample's nearest one as well
    (`Ledger.perturbations`).
    Raises `InputError` for images, labels, or a network that no attack could be believed on (`audit`).
    """
    images, labels = checked_images("attacks", images, labels)
    if repetitions < 1 or (max_gradients is not None and max_gradients < 1):
        raise InputError(f"attacks: repetitions {repetitions}, max_gradients {max_gradients}; give 1 or more")
    settings = chosen(attacks, norm, exhaustive=exhaustive)
    names = tuple(ids) if ids is not None else tuple(str(row) for row in range(len(images)))
    if len(names) != len(images) or len(set(names)) != len(names):
        raise InputError(f"attacks: {len(names)} ids for {len(images)} images; give one to each, none twice")
    victim = model if isinstance(model, Victim) else Victim(model)
    audit(victim, images, labels)
    search = _Search(
        victim, name, norm, settings, repetitions, exhaustive, seed, max_gradients or _NO_LIMIT, keep_adversarials
    )
    file = None if ledger is None else LedgerFile(ledger, search.header(images[:1]))
    try:
        left = _left(file, names, images, labels)
        records = list[AttackRecord]()
        size = min(victim.batch_size, _EXHAUSTIVE_CHUNK) if exhaustive else victim.batch_size
        done = len(names) - len(left)
        with victim.borrowed():
            for rows in _chunks(left, size, max_seconds):

                def say(part: float, said: str, done: int = done, some: int = len(rows)) -> None:
                    if progress is not None:
                        progress((done + part * some) / len(names), said)

                found = search.chunk([names[row] for row in rows], images[rows], labels[rows], say)
                done += len(rows)
                if file is None:
                    records += found
                else:
                    file.add(found)
        whole = Ledger.of_records(records) if file is None else file.finish()
    finally:
        if file is not None:
            file.close()
    return whole if file is None else whole.of(samples=names)


def _chunks(rows: list[int], size: int, max_seconds: float | int | None) -> Iterator[list[int]]:
    """The rows in pieces; under a limit, pieces so small that it is kept, as those before say."""
    begun, done = time.monotonic(), 0
    while done < len(rows):
        some = size
        if max_seconds is not None:
            spent = time.monotonic() - begun
            some = min(size, int((max_seconds - spent) * done / max(spent, 1e-9)) if done else 1)
            if some < 1:
                return
        yield rows[done : done + some]
        done += some


def search_cost(
    model: nn.Module | Victim,
    images: Images,
    labels: Labels,
    *,
    attacks: Sequence[str | Attack],
    norm: Norm,
    repetitions: int = 1,
    exhaustive: bool = False,
    max_gradients: int | None = None,
) -> Cost:
    """What `minimal_perturbations` of the same arguments may cost: counted, and timed on one batch."""
    images, labels = checked_images("attacks", images, labels)
    settings = chosen(attacks, norm, exhaustive=exhaustive)
    victim = model if isinstance(model, Victim) else Victim(model)
    audit(victim, images, labels)
    x = images[: victim.batch_size].float().to(victim.device)
    y = labels[: victim.batch_size].to(victim.device)
    times = []
    with victim.borrowed():
        for _ in range(3):
            begun = time.monotonic()
            victim.ascent(x, y, margin)
            times.append((time.monotonic() - begun) / len(x))
    each = min(repetitions * sum(attack.most_gradients for attack in settings), max_gradients or _NO_LIMIT)
    gradients = each * len(images)
    queries = repetitions * sum(attack.queries for attack in settings if isinstance(attack, Boundary)) * len(images)
    return Cost(
        attempts=repetitions * len(settings) * len(images),
        gradients=gradients,
        # A gradient is about three forward passes; decisions cost one, and are not limited by max_gradients.
        seconds=(gradients + queries / 3) * sorted(times)[1],
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    """What is the same for all samples."""

    victim: Victim
    name: str
    norm: Norm
    settings: tuple[Attack, ...]
    repetitions: int
    exhaustive: bool
    seed: int
    max_gradients: int
    keep: bool

    def header(self, image: torch.Tensor) -> dict[str, object]:
        """What the ledger's file must have been made with to be gone on with; `image`: one of the shape."""
        return {
            "neuroprior": version("neuroprior"),
            "model": self.name,
            "network": fingerprint(self.victim),
            "answers": answers(self.victim, image),
            "norm": self.norm,
            "attacks": [repr(attack) for attack in self.settings],
            "repetitions": self.repetitions,
            "exhaustive": self.exhaustive,
            "seed": self.seed,
            "max_gradients": None if self.max_gradients == _NO_LIMIT else self.max_gradients,
            **({"keep_adversarials": True} if self.keep else {}),
        }

    def chunk(
        self, names: list[str], images: torch.Tensor, labels: torch.Tensor, say: Callable[[float, str], None]
    ) -> list[AttackRecord]:
        """Search some samples; `say` is told how far it is, and what comes next. Returns the rows, sample by sample."""
        x, y = images.float().to(self.victim.device), labels.to(self.victim.device)
        digests = [image_digest(image, int(label)) for image, label in zip(images, labels, strict=True)]
        samples = [_Sample(*both) for both in zip(names, digests, strict=True)]
        logits = self.victim.logits(x)
        sound = logits.isfinite().all(1)
        right = logits.argmax(1) == y
        for row in range(len(x)):
            status: AttackStatus = "quarantined" if not sound[row] else "right" if right[row] else "already_wrong"
            distance = 0.0 if status == "already_wrong" else np.inf
            samples[row].records.append(self._record(samples[row], "clean", "", 0, status, distance, 1, 0))
        active = torch.nonzero(sound & right).squeeze(1)
        best, best_length = x.clone(), torch.full((len(x),), torch.inf, device=x.device)
        spent = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        planned = [(attack, repetition) for repetition in range(self.repetitions) for attack in self.settings]
        futile = {attack.name: torch.zeros_like(spent) for attack in self.settings}
        for k, (attack, repetition) in enumerate(planned):
            say(k / len(planned), f"{attack.name} {attack.setting}")
            going = active[spent[active] < self.max_gradients]
            if not self.exhaustive:
                going = going[futile[attack.name][going] < _FUTILE]
            if not len(going):
                continue
            unknown = torch.full_like(best_length[going], torch.inf)
            attempt = Attempt(
                victim=self.victim,
                images=x[going],
                labels=y[going],
                norm=self.norm,
                known=best[going],
                known_length=unknown if self.exhaustive else best_length[going],
                max_gradients=self.max_gradients - spent[going],
                tag=f"{self.seed}/{attack.name}/{attack.setting}/{repetition}",
                repetition=repetition,
            )
            attack(attempt)
            attempt.tighten()
            verified = self._settle(attempt, attack, [samples[row] for row in going.tolist()])
            spent[going] += attempt.gradients
            # Where nothing was found yet, another start may still find something.
            vain = (verified >= best_length[going] * (1 - 1e-3)) & (best_length[going] < torch.inf)
            futile[attack.name][going] = torch.where(vain, futile[attack.name][going] + 1, 0)
            kept = verified < best_length[going]
            for row in going[kept].tolist():
                samples[row].nearest = len(samples[row].records) - 1
            best[going[kept]], best_length[going[kept]] = attempt.found[kept], verified[kept]
        if self.keep:
            for sample, adversarial in zip(samples, best, strict=True):
                sample.keep(adversarial)
        say(1.0, "done")
        return [record for sample in samples for record in sample.records]

    def _settle(self, attempt: Attempt, attack: Attack, samples: "Sequence[_Sample]") -> torch.Tensor:
        """Check what was found and write a row a sample; returns the verified lengths, inf where there is none."""
        found = attempt.found_length < torch.inf
        exact = verified_lengths(attempt)
        traces = _traces(attempt)
        for k, sample in enumerate(samples):
            distance = float(exact[k])
            status: AttackStatus = "found"
            alone = not bool(attempt.known_length[k] < torch.inf)
            if not np.isfinite(distance):
                nothing: AttackStatus = "unsound" if attempt.unsound[k] else "not_found" if alone else "no_better"
                status = "unverified" if found[k] else nothing
            trace = traces.get(k, ()) if status == "found" else ()
            asked = (int(attempt.forwards[k]), int(attempt.gradients[k]))
            made = (attack.name, attack.setting, attempt.repetition)
            sample.records.append(self._record(sample, *made, status, distance, *asked, trace, alone))
        return torch.from_numpy(exact).to(attempt.found_length)

    def _record(
        self,
        sample: "_Sample",
        attack: str,
        setting: str,
        repetition: int,
        status: AttackStatus,
        distance: float,
        forwards: int,
        gradients: int,
        trace: tuple[tuple[int, int, float], ...] = (),
        alone: bool = True,
    ) -> AttackRecord:
        return AttackRecord(
            model=self.name,
            sample=sample.name,
            attack=attack,
            setting=setting,
            repetition=repetition,
            norm=self.norm,
            distance=distance,
            forwards=forwards,
            gradients=gradients,
            verified=status == "found",
            status=status,
            image=sample.image,
            trace=trace,
            alone=alone,
        )


@dataclass(slots=True, eq=False)
class _Sample:
    """A sample's name, the digest of its image, its rows so far, and which of them came nearest."""

    name: str
    image: str
    records: list[AttackRecord] = field(default_factory=list)
    nearest: int | None = None

    def keep(self, adversarial: torch.Tensor) -> None:
        """Put the nearest adversarial into its row."""
        if self.nearest is not None:
            values = tuple(adversarial.flatten().tolist())
            self.records[self.nearest] = replace(self.records[self.nearest], adversarial=values)


def _left(file: LedgerFile | None, names: tuple[str, ...], images: torch.Tensor, labels: torch.Tensor) -> list[int]:
    """The rows that the ledger does not have yet. Raises `InputError` where it has another image of the same name."""
    searched = {} if file is None else file.searched()
    left = []
    for row, name in enumerate(names):
        if name not in searched:
            left.append(row)
        elif searched[name] != image_digest(images[row], int(labels[row])):
            raise InputError(
                f"{cast(LedgerFile, file).path}: its sample {name!r} is another image; choose another file, "
                "or give the same images, or ids of their own"
            )
    return left


def _traces(attempt: Attempt) -> dict[int, tuple[tuple[int, int, float], ...]]:
    """The improvements of each sample, those of less than half a percent left out but the last."""
    steps: dict[int, list[tuple[int, int, float]]] = {}
    for rows, forwards, gradients, far in attempt.improvements:
        for row, f, g, d in zip(rows.tolist(), forwards.tolist(), gradients.tolist(), far.tolist(), strict=True):
            told = steps.setdefault(row, [])
            if len(told) > 1 and told[-1][2] > 0.995 * told[-2][2]:
                told.pop()
            told.append((f, g, d))
    return {row: tuple(told) for row, told in steps.items()}
