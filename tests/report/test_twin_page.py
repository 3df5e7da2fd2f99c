"""The page of twins: its numbers are the scores', what is not known is said to be left out."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from neuroprior.report.twin_page import write_twin_page
from neuroprior.twin import FitEpoch, Twin, TwinArchitecture, TwinScores
from neuroprior.twin.model import EncodingModel, field_centres
from neuroprior.types import InputError, Scan, Stimuli

SIZE = (20, 30)
N = 12
HISTORY = [FitEpoch(k + 1, 1 / (k + 1), 0.01, 0.1 * k, 0.005 if k < 2 else 0.001) for k in range(3)]
SHOWN = Stimuli(np.array(["a", "b"]), np.arange(1200, dtype=np.uint8).reshape(2, *SIZE))


def made(name: str = "mouse", architecture: TwinArchitecture | None = None, n_behavior: int = 0) -> Twin:
    """A twin without training, its neurons in a row from left to right."""
    architecture = architecture or TwinArchitecture(channels=3, n_layers=2, first_kernel=5, kernel=3)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        where = torch.stack([torch.linspace(-0.8, 0.8, N), torch.full((N,), 0.5)], dim=1)
        readout = architecture.new_readout(architecture.map_size(SIZE), where, torch.zeros(N), None)
        readout.features.data = torch.randn_like(readout.features)
        model = EncodingModel(
            architecture.new_core(n_behavior),
            readout.settled(),
            architecture.new_shifter(),
            architecture.new_modulator(n_behavior, N),
            channels=architecture.behavior == "channels",
        )
    model.eval().requires_grad_(False)
    v = np.linspace(0.0, 0.55, N, dtype=np.float32)
    return Twin(name, model, SIZE, N, 120.0, 60.0, (1.0,) * n_behavior, False, "d1" * 32, snr=v + 1, accuracy=v)


def scored(*, repeats: bool = True) -> TwinScores:
    rng = np.random.default_rng(0)
    single = rng.uniform(-0.1, 0.6, N)
    single[0] = np.nan
    if not repeats:
        return TwinScores("validation", 40, 40, single, None, None, None)
    feve = np.where(np.arange(N) < 5, np.nan, rng.uniform(-2, 0.8, N))
    return TwinScores("oracle", 40, 8, single, single + 0.2, feve, single + 0.3)


def recorded(name: str = "mouse") -> Scan:
    rng = np.random.default_rng(1)
    responses = rng.uniform(size=(6, N)).astype(np.float32)
    xyz = rng.uniform(0, 900, (N, 3)).astype(np.float32)
    return Scan(name, SHOWN, np.array([0, 1] * 3), responses, np.array(["train"] * 6), neuron_xyz=xyz)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page of all there is, its folder and its files."""
    folder = tmp_path_factory.mktemp("somewhere")
    two = [made(), replace(made("other"), accuracy=None, snr=None)]
    given = {"scores": {"mouse": scored(), "other": scored(repeats=False)}, "scans": {"mouse": recorded()}}
    settings = {"architecture": {"channels": 3}, "seed": 0}
    files = write_twin_page(
        two, folder, history=HISTORY, notes=["a <b> note"], settings=settings, n_exciting=1, **given
    )
    return (folder / "index.html").read_text(), folder, files


def test_every_figure_is_on_the_page_and_beside_it(page):
    text, folder, files = page
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in files)
    assert {path.stem for path in files} == {
        "index", "learning", "filters-0", "positions-0-x", "positions-0-y", "positions-1", "exciting-0", "exciting-1",
        "scores-0", "scores-1", "oracle-0",
    }  # fmt: skip
    assert text.count("<svg") == len(files) - 1
    assert "Left out" not in text


def test_the_page_stands_alone_and_names_no_place(page):
    text, folder, files = page
    assert not re.search(r'(?:src|href)="(?!#|data:)', text)
    assert "<script" not in text
    ids = re.findall(r'\sid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    for path in files:
        assert str(folder) not in path.read_text()
    assert "a &lt;b&gt; note" in text
    assert not re.search(r"\b(nan|None)\b", text)


def test_the_table_and_the_captions_say_what_the_scores_are(page):
    text, _, _ = page
    one = scored()
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", row) for row in text.split("<tr>")[2:4]]
    kept = one.feve[np.isfinite(one.feve)]
    assert cells[0][:3] == ["12", "6", "40 (8)"]
    assert cells[0][3].startswith(f"{np.nanmean(one.single_trial):.2f} (")
    assert cells[0][5] == f"{np.median(kept):z.2f} (7 of 12)".replace("-", "−")
    assert cells[0][6] == f"{one.oracle_fraction:.2f}"
    assert cells[0][7] == f"{made().accuracy.mean():.2f}"
    assert cells[1][1] == "–"
    assert cells[1][4:8] == ["–"] * 4
    assert f"slope {one.oracle_fraction:.2f}, n = 11 neurons" in text
    assert "3 epochs; the weights are those of epoch 3." in text
    assert "Dashed: from here on at a lower learning rate" in text
    assert "No image was repeated: other." in text


def test_the_best_neurons_are_shown_and_the_first_where_nobody_knows(page):
    text, _, _ = page
    assert "Most exciting images, of neurons 11 of mouse." in text
    assert "Most exciting images, of neurons 0 of other." in text


def test_what_is_not_given_is_said_to_be_left_out(tmp_path):
    write_twin_page([replace(made(), pixel_mean=None, pixel_std=None)], tmp_path)
    text = (tmp_path / "index.html").read_text()
    for why in ("no history of a fit", "no file says what pixels are z-scored with (mouse)", "no scores were given"):
        assert f"Left out: {why}" in text
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "filters-0.svg", "positions-0.svg"}


def test_the_fifth_scan_is_counted_and_not_drawn(tmp_path):
    files = write_twin_page([made(f"m{k}") for k in range(5)], tmp_path, n_exciting=0)
    assert sum(path.stem.startswith("positions") for path in files) == 4
    assert (tmp_path / "index.html").read_text().count("1 more scan is not drawn.") == 1


@pytest.mark.parametrize(
    ("twins", "given", "says"),
    [
        ([], {}, "no twin given"),
        (["mouse", "mouse"], {}, "two twins are called 'mouse'"),
        (["mouse"], {"scores": {"rat": scored()}}, "scores of 'rat', and no twin is called so; there are mouse"),
        (["mouse"], {"scans": {"rat": recorded()}}, "scan of 'rat', and no twin is called so"),
        (["mouse"], {"n_exciting": -1}, "n_exciting is -1"),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path, twins, given, says):
    with pytest.raises(InputError, match=re.escape(says)):
        write_twin_page([made(name) for name in twins], tmp_path / "page", **given)
    assert not (tmp_path / "page").exists()


def test_scores_of_other_neurons_are_refused(tmp_path):
    fewer = replace(scored(repeats=False), single_trial=np.zeros(3))
    with pytest.raises(InputError, match="scores of 'mouse': 3 neurons, and the twin has 12"):
        write_twin_page([made()], tmp_path, scores={"mouse": fewer})


PARTS = {
    "gain": TwinArchitecture(channels=3, n_layers=1, first_kernel=5),
    "unpadded": TwinArchitecture(channels=3, n_layers=1, first_kernel=5, padded=False),
    "channels": TwinArchitecture(channels=3, n_layers=1, first_kernel=5, behavior="channels"),
    "factorised": TwinArchitecture(channels=3, n_layers=1, first_kernel=5, readout="factorised"),
}


@pytest.mark.parametrize("name", list(PARTS))
def test_a_field_s_centre_is_the_pixel_that_a_linear_neuron_looks_at(name):
    """A filter of one pixel at a map's place: the response follows the pixel under the centre, and no other."""
    twin = made("mouse", PARTS[name], n_behavior=2)
    model = twin.model
    row, column = 6, 17  # of the map
    (rows, columns), lost = PARTS[name].map_size(SIZE), 0 if PARTS[name].padded else 2
    x, y = 2 * column / (columns - 1) - 1, 2 * row / (rows - 1) - 1
    with torch.no_grad():
        model.core.filters.zero_()
        model.core.filters[:, 0, 2, 2] = 1.0
        model.readout.features.fill_(1.0)
        if name == "factorised":
            model.readout.mask.zero_()
            model.readout.mask[:, row, column] = 1.0
        else:
            model.readout.places.positions.copy_(torch.tensor([x, y]).expand(N, 2))
    centre = field_centres(twin)
    assert centre == pytest.approx(np.tile([column + lost + 0.5, row + lost + 0.5], (N, 1)), abs=1e-4)
    image = torch.zeros(1, 1, *SIZE, requires_grad=True)
    model(image, torch.zeros(1, 2), torch.zeros(1, 2))[0, 0].backward()
    at = np.argwhere(np.abs(image.grad[0, 0].numpy()) > 1e-6)
    inside = np.abs(at[:, ::-1] + 0.5 - centre[0]) < 1
    assert len(at)
    assert inside.all()
