"""Scans -> twins: one core for all, a readout, a shifter and a modulator for each."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import overload

import numpy as np
import torch
from torch import nn

from neuroprior.checkpoint import Checkpoint
from neuroprior.logs import NoLog, TrainingLog
from neuroprior.recordings.given import given_scans
from neuroprior.twin.architecture import TwinArchitecture
from neuroprior.twin.evaluate import correlation
from neuroprior.twin.fit.digest import fit_digest, scan_digest
from neuroprior.twin.fit.models import new_models, settled
from neuroprior.twin.fit.penalties import group_sparsity, readout_l1, roughness
from neuroprior.twin.fit.progress import Clock, FitProgress
from neuroprior.twin.fit.settings import FitSettings
from neuroprior.twin.fit.so_far import FitEpoch, FitSoFar
from neuroprior.twin.fit.trials import ImageBank, ScanTrials, held_back, image_bank, scan_trials
from neuroprior.twin.model import EncodingModel, Twin
from neuroprior.types import Float, InputError, Int64, Precision, Scan

__all__ = ["FitDivergedError", "FittedTwins", "fit_twin"]

_EPS = 1e-6
_IMAGES_AT_ONCE = 32
_FORWARD_PART = 1 / 3  # of a step's time: a gradient takes about twice what a prediction does
_Sorted = tuple[
    Int64[np.ndarray, " _"], Int64[np.ndarray, " _"]
]  # where each image's trials begin, and trials sorted by image
_USUAL_ARCHITECTURE, _USUAL_SETTINGS = TwinArchitecture(), FitSettings()


@dataclass(frozen=True, slots=True, eq=False)
class FittedTwins(Sequence[Twin]):
    """Twins with a common core, one a scan, in the scans' order. `notes`: what is to be said of it, a line each."""

    twins: tuple[Twin, ...]
    history: tuple[FitEpoch, ...]
    architecture: TwinArchitecture
    settings: FitSettings
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.twins)

    @overload
    def __getitem__(self, index: int) -> Twin: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Twin, ...]: ...
    def __getitem__(self, index: int | slice) -> Twin | tuple[Twin, ...]:
        return self.twins[index]


class FitDivergedError(FloatingPointError):
    """The loss was no longer finite. `fitted`: the twins of the best epoch; None where no epoch was finished."""

    def __init__(self, said: str, fitted: FittedTwins | None) -> None:
        kept = "no epoch was finished" if fitted is None else f"the twins of its best epoch, {_best(fitted)}, are kept"
        super().__init__(f"{said}; {kept}")
        self.fitted = fitted


def fit_twin(
    scans: Scan | Sequence[Scan],
    architecture: TwinArchitecture = _USUAL_ARCHITECTURE,
    settings: FitSettings = _USUAL_SETTINGS,
    *,
    leave_out: Sequence[str] = (),
    digest: str | None = None,
    log: TrainingLog | None = None,
    checkpoint: Checkpoint | None = None,
    progress: Callable[[FitProgress], None] | None = None,
) -> FittedTwins:
    """Fit one twin a scan, with a common core (Eq. 6): minimise the mean over trials and neurons of
    `rho - r log rho` (Poisson; r in each neuron's standard deviations), plus penalties.

    The core sees an image once for all scans that show it (unless behaviour enters it). Oracle and validation images
    of any scan, and those of `leave_out`, are trained on in none. Training follows the single-trial correlation on
    validation trials (tier validation, or a part of the training images): restored and slowed when it stops rising,
    ended after some of these.
    Each twin brings w_a and v_a from its oracle trials, where they repeat; otherwise `notes` says so, and how many
    trials of a scan are lost to what others hold back.
    With a `checkpoint`, a fit that was stopped at any step goes on from the last one kept, to the same bytes. `digest`:
    what checkpoints of this fit are told apart by (`fit_digest`, unless given), which takes reading the scans.
    Raises `InputError` for scans that cannot be fitted together or a checkpoint of another fit, `FitDivergedError`
    naming step and learning rate, with the best twins so far, where the loss is no longer finite.
    """  # fmt: skip
    scans = given_scans("twin fit", scans)
    names = [scan.name for scan in scans]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"twin fit: two scans are called {twice!r}; give each a name of its own")
    bank = image_bank(scans)
    trials = _all_trials(scans, bank, architecture, settings, frozenset(leave_out))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        models = new_models(trials, bank, architecture)
        if digest is None and checkpoint is not None:
            digest = fit_digest([scan_digest(scan) for scan in scans], architecture, settings, leave_out)
        fit = _Fit(models, trials, bank, settings, digest or "")
        if checkpoint is not None and (saved := checkpoint.load()) is not None:
            fit.so_far.restore(saved)
        failed = fit.run(NoLog() if log is None else log, checkpoint, progress)
    if failed is not None and not fit.so_far.best:
        raise FitDivergedError(failed, None)
    made = [settled(model, scan, bank) for model, scan in zip(models, trials, strict=True)]
    notes = tuple(note for _, said in made for note in said)
    fitted = FittedTwins(tuple(twin for twin, _ in made), tuple(fit.so_far.history), architecture, settings, notes)
    if failed is not None:
        raise FitDivergedError(failed, fitted)
    return fitted


class _Fit:
    def __init__(
        self, models: list[EncodingModel], trials: list[ScanTrials], bank: ImageBank, settings: FitSettings, digest: str
    ) -> None:
        self.models, self.trials, self.bank, self.settings = models, trials, bank, settings
        self.core = models[0].core
        self.module_list = nn.ModuleList(models)
        # what is shared is listed once
        optimizer = torch.optim.Adam(self.module_list.parameters(), settings.learning_rate)
        self.so_far = FitSoFar(self.module_list, optimizer, torch.Generator().manual_seed(settings.seed), digest)
        self.images = np.unique(np.concatenate([t.row[t.train] for t in trials]))
        self.by_image = [_by_image(t.row, t.train, len(bank.ids)) for t in trials]
        self.validation_images = np.unique(np.concatenate([t.row[t.validation] for t in trials]))
        self.validation_by_image = [_by_image(t.row, t.validation, len(bank.ids)) for t in trials]

    def run(
        self, log: TrainingLog, checkpoint: Checkpoint | None, progress: Callable[[FitProgress], None] | None
    ) -> str | None:
        """Train until the end; the models then hold their best weights. Return what went wrong, if anything did."""
        settings, so_far = self.settings, self.so_far
        steps = math.ceil(len(self.images) / settings.batch_images)
        log.go_on_from(so_far.epoch * steps + so_far.step)
        clock = Clock()
        failed: str | None = None
        try:
            while so_far.epoch < settings.max_epochs and so_far.decays <= settings.decays:
                if so_far.step == 0:
                    so_far.begin_epoch(torch.randperm(len(self.images), generator=so_far.random))
                self.module_list.train()
                clock.start()
                for step in range(so_far.step, steps):
                    rows = so_far.order[step * settings.batch_images : (step + 1) * settings.batch_images]
                    self._step(self.images[rows.numpy()], f"epoch {so_far.epoch + 1}, step {step + 1}")
                    so_far.step = step + 1
                    clock.stepped()
                    if progress is not None:
                        progress(self._progress(clock, steps))
                    if checkpoint is not None and checkpoint.is_due():
                        checkpoint.save(so_far.state())
                summed = torch.tensor([self._n_responses(self.images), len(self.images)], dtype=torch.float64)
                loss, penalty = (so_far.sums / summed).tolist()
                clock.start()
                reached = self.validation_correlation()
                clock.validated()
                ended = FitEpoch(so_far.epoch + 1, loss, penalty, reached, so_far.learning_rate)
                so_far.end_epoch(ended, settings.least_gain)
                log.write(so_far.epoch * steps, asdict(ended))
                if so_far.waited >= settings.patience:
                    so_far.decay(settings.decay)
        except FloatingPointError as error:
            failed = str(error)
        finally:
            log.close()
        so_far.use_best()
        return failed

    def _step(self, images: Int64[np.ndarray, " batch"], where: str) -> None:
        """Take one step; so many images at once that memory does not grow with the batch."""
        so_far = self.so_far
        count = self._n_responses(images)
        so_far.optimizer.zero_grad(set_to_none=True)
        loss, penalty = torch.zeros(()), self._penalty()
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            loss = loss + self._descended(self._loss(images[start : start + _IMAGES_AT_ONCE], count), where)
        means = torch.stack([loss, self._descended(penalty, where)]).double()
        # images differ in trials, and trials in neurons: so that an epoch's loss is that of a response too
        so_far.sums += means * torch.tensor([count, len(images)], dtype=torch.float64)
        so_far.optimizer.step()

    def _n_responses(self, images: Int64[np.ndarray, " some"]) -> int:
        """How many responses there are to these images, of all scans' neurons, to train on."""
        return sum(
            int((first[images + 1] - first[images]).sum()) * len(model.unit)
            for (first, _), model in zip(self.by_image, self.models, strict=True)
        )

    def _loss(self, images: Int64[np.ndarray, " some"], count: int) -> Float[torch.Tensor, ""]:
        """What these images' trials add to the mean loss of `count` responses."""
        total = torch.zeros(())
        for part in self._predicted(images, self.by_image, self.settings.precision):
            if part is not None:
                rates, responses = part
                total = total + (rates - responses * torch.log(rates + _EPS)).sum()
        return total / count

    def _descended(self, part: Float[torch.Tensor, ""], where: str) -> Float[torch.Tensor, ""]:
        """Add a part of the loss's gradients to the others'; return its value."""
        if not torch.isfinite(part):
            rate = self.so_far.learning_rate
            raise FloatingPointError(
                f"twin fit: the loss is {part.item()} at {where}, learning rate {rate:g}; lower it"
            )
        if part.requires_grad:
            part.backward()  # type: ignore[no-untyped-call] # missing from torch's stub
        return part.detach()

    def _predicted(
        self, images: Int64[np.ndarray, " batch"], by_image: Sequence[_Sorted], precision: Precision
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor] | None]:
        """Rates and responses of the trials of these images, scan by scan; None of a scan that has none.

        `precision`: of the core's layers alone. Maps come out coarse, but what is read out of them is float32.
        """
        batches = [_Batch(*_trials_of(images, *found), scan) for found, scan in zip(by_image, self.trials, strict=True)]
        seen = self.bank.z_scored(images)
        if self.models[0].channels:
            # behaviour beside the image: every trial is a pass of its own, those of all scans in one batch
            each = [m.seen(seen[batch.rows], batch.behavior) for m, batch in zip(self.models, batches, strict=True)]
            together = torch.cat(each).contiguous(memory_format=torch.channels_last)
            maps = self._maps(together, precision).split([len(e) for e in each])  # type: ignore[no-untyped-call] # no stub
            rows = [torch.arange(len(e)) for e in each]
        else:
            maps = [self._maps(seen, precision)] * len(batches)
            rows = [batch.rows for batch in batches]
        for model, batch, own_maps, own_rows in zip(self.models, batches, maps, rows, strict=True):
            if len(own_rows):
                yield model.rates(own_maps, batch.behavior, batch.pupil, own_rows), batch.responses
            else:
                yield None

    def _maps(self, seen: Float[torch.Tensor, "pass channel h w"], precision: Precision) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            maps: torch.Tensor = self.core(seen)
        return maps

    def _penalty(self) -> Float[torch.Tensor, ""]:
        settings = self.settings
        penalty = settings.smoothness * roughness(self.core.filters)
        if settings.group_sparsity:
            penalty = penalty + settings.group_sparsity * group_sparsity(self.core)
        if settings.readout_l1:
            each = torch.stack([readout_l1(model.readout) for model in self.models])
            penalty = penalty + settings.readout_l1 * each.mean()
        return penalty

    def validation_correlation(self) -> float:
        """Mean over all neurons of Pearson's r over the validation trials, 0 for those that never vary."""
        self.module_list.eval()
        seen: list[list[tuple[np.ndarray, np.ndarray]]] = [[] for _ in self.models]
        for start in range(0, len(self.validation_images), _IMAGES_AT_ONCE):
            images = self.validation_images[start : start + _IMAGES_AT_ONCE]
            with torch.inference_mode():
                parts = self._predicted(images, self.validation_by_image, "float32")
                for part, mine in zip(parts, seen, strict=True):
                    if part is not None:
                        mine.append((part[0].numpy(), part[1].numpy()))
        every = []
        for mine in seen:
            predicted, responses = (np.concatenate(parts).astype(np.float64) for parts in zip(*mine, strict=True))
            if not np.isfinite(predicted).all():
                raise FloatingPointError(
                    f"twin fit: predictions are not finite after epoch {self.so_far.epoch + 1}, learning rate "
                    f"{self.so_far.learning_rate:g}; lower it"
                )
            every.append(correlation(predicted, responses))
        return float(np.nan_to_num(np.concatenate(every), nan=0.0).mean())

    def _progress(self, clock: Clock, steps: int) -> FitProgress:
        settings, so_far = self.settings, self.so_far
        most = settings.max_epochs - so_far.epoch  # epochs, with this one, which is to be validated yet
        least = min(most, settings.patience * (settings.decays + 1 - so_far.decays) - so_far.waited)
        usual = len(self.validation_images) / settings.batch_images * _FORWARD_PART  # steps a validation takes
        return FitProgress(
            so_far.epoch + 1,
            so_far.step / steps,
            so_far.decays,
            so_far.best_correlation,
            clock.seconds(least * steps - so_far.step, least, usual),
            clock.seconds(most * steps - so_far.step, most, usual),
        )


class _Batch:
    """One scan's trials of a step. `rows`: of the step's images, one a trial."""

    def __init__(
        self, rows: Int64[np.ndarray, " trial"], trials: Int64[np.ndarray, " trial"], scan: ScanTrials
    ) -> None:
        self.rows = torch.from_numpy(rows)
        self.behavior, self.pupil = scan.conditions(trials)
        self.responses = scan.responses(trials)


def _best(fitted: FittedTwins) -> int:
    return max(fitted.history, key=lambda epoch: epoch.validation_correlation).epoch


def _by_image(row: Int64[np.ndarray, " trial"], trials: Int64[np.ndarray, " some"], n_images: int) -> _Sorted:
    """`trials` sorted by image, and where each image's begin."""
    order = trials[np.argsort(row[trials], kind="stable")]
    counts = np.bincount(row[trials], minlength=n_images)
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64), order


def _trials_of(
    images: Int64[np.ndarray, " batch"], first: Int64[np.ndarray, " first"], order: Int64[np.ndarray, " some"]
) -> tuple[Int64[np.ndarray, " trial"], Int64[np.ndarray, " trial"]]:
    """All trials of these images, and for each which of the images it shows. `first`, `order`: of `_by_image`."""
    counts = first[images + 1] - first[images]
    rows = np.repeat(np.arange(len(images)), counts)
    within = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    return rows, order[np.repeat(first[images], counts) + within]


def _all_trials(
    scans: Sequence[Scan],
    bank: ImageBank,
    architecture: TwinArchitecture,
    settings: FitSettings,
    left_out: frozenset[str],
) -> list[ScanTrials]:
    rows = {name: row for row, name in enumerate(bank.ids.tolist())}
    channels = {scan.behavior_names for scan in scans}
    if architecture.behavior == "channels" and len(channels) > 1:
        raise InputError(
            f"twin fit: scan {scans[0].name} records {', '.join(scans[0].behavior_names) or 'no behaviour'}, another "
            "something else; one core cannot take both as channels: use --behavior gain (behavior='gain')"
        )
    held = held_back(scans, settings)
    return [
        scan_trials(
            scan,
            rows,
            settings,
            left_out,
            held,
            needs_behavior=architecture.behavior != "none",
            needs_pupil=architecture.shifter != "none",
        )
        for scan in scans
    ]
