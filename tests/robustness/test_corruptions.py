"""Corrupted images: each kind is what its formula says, with the published constants."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom
from skimage import color

from neuroprior.robustness.corruptions import (
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    USUAL_CORRUPTIONS,
    blurs,
    corrupted,
    digital,
    noises,
    spatter,
    weather,
)

ALL = USUAL_CORRUPTIONS + EXTRA_CORRUPTIONS

# Of the authors' make_cifar_c.py (github.com/hendrycks/robustness), in its order of arguments.
PUBLISHED = {
    noises.GAUSSIAN_NOISE: (0.04, 0.06, 0.08, 0.09, 0.10),
    noises.SHOT_NOISE: (500, 250, 100, 75, 50),
    noises.IMPULSE_NOISE: (0.01, 0.02, 0.03, 0.05, 0.07),
    noises.SPECKLE_NOISE: (0.06, 0.1, 0.12, 0.16, 0.2),
    blurs.GAUSSIAN_BLUR: (0.4, 0.6, 0.7, 0.8, 1),
    blurs.GLASS_BLUR: ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    blurs.DEFOCUS_BLUR: ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    blurs.MOTION_BLUR: ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    blurs.ZOOM_BLUR: (1.06, 1.11, 1.16, 1.21, 1.26),
    weather.FOG: ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    weather.FROST: ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    weather.SNOW: (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    ),
    weather.BRIGHTNESS: (0.05, 0.1, 0.15, 0.2, 0.3),
    digital.CONTRAST: (0.75, 0.5, 0.4, 0.3, 0.15),
    digital.SATURATE: ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    digital.JPEG_COMPRESSION: (80, 65, 58, 50, 40),
    digital.PIXELATE: (0.95, 0.9, 0.85, 0.75, 0.65),
    digital.ELASTIC_TRANSFORM: tuple(
        tuple(32 * share for share in shares)
        for shares in ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))
    ),
    spatter.SPATTER: (
        (0.62, 0.1, 0.7, 0.7, 0.5, 0),
        (0.65, 0.1, 0.8, 0.7, 0.5, 0),
        (0.65, 0.3, 1, 0.69, 0.5, 0),
        (0.65, 0.1, 0.7, 0.69, 0.6, 1),
        (0.65, 0.1, 0.5, 0.68, 0.6, 1),
    ),
}

LEVEL = 128 / 255  # mid-gray that 8 bits have
PIXELS = 20 * 32 * 32


def flat(level: float = LEVEL, n: int = 20) -> torch.Tensor:
    """Flat images of one channel, told apart by a pixel in a corner, so that each has draws of its own."""
    images = torch.full((n, 1, 32, 32), level)
    images[:, 0, 0, 0] = torch.arange(n) / 255
    return images


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_there_are_fifteen_usual_kinds_and_four_extra_ones_all_at_five_published_severities():
    assert (len(USUAL_CORRUPTIONS), len(EXTRA_CORRUPTIONS), len(set(ALL))) == (15, 4, 19)
    assert len(PUBLISHED) == 19
    for ours, published in PUBLISHED.items():
        assert ours == published
        assert len(ours) == 5


@pytest.mark.parametrize("severity", SEVERITIES)
def test_noise_has_the_published_spread(severity):
    x = flat()

    def values(kind, images=x):
        return corrupted(images, kind, severity)[..., 1:, 1:].double().numpy()

    # of 20,000 values a standard deviation is known to half a percent, 4 of which are allowed
    spread = noises.GAUSSIAN_NOISE[severity - 1]
    assert values("gaussian_noise").std() == pytest.approx(spread, rel=0.02)
    assert values("gaussian_noise").mean() == pytest.approx(LEVEL - 0.5 / 255, abs=4 * spread / math.sqrt(PIXELS))
    photons = noises.SHOT_NOISE[severity - 1]
    assert values("shot_noise").std() == pytest.approx(math.sqrt(LEVEL / photons), rel=0.02)
    assert values("shot_noise", flat(32 / 255)).std() == pytest.approx(math.sqrt(32 / 255 / photons), rel=0.02)
    assert values("speckle_noise").std() == pytest.approx(LEVEL * noises.SPECKLE_NOISE[severity - 1], rel=0.02)
    share = noises.IMPULSE_NOISE[severity - 1]
    struck = values("impulse_noise")
    assert (struck != np.float32(LEVEL)).mean() == pytest.approx(share, abs=4 * math.sqrt(share / PIXELS))
    assert (struck == 1).mean() == pytest.approx(share / 2, abs=4 * math.sqrt(share / 2 / PIXELS))
    assert (struck == 0).mean() == pytest.approx(share / 2, abs=4 * math.sqrt(share / 2 / PIXELS))


@pytest.mark.parametrize(
    "kind", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur", "contrast"]
)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_what_has_no_detail_can_lose_none(kind, severity):
    x = torch.full((2, 1, 32, 32), LEVEL)
    x[1] = 1
    assert torch.equal(corrupted(x, kind, severity), x)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_blurs_of_one_bright_pixel(severity):
    dot = np.zeros((1, 33, 33))
    dot[0, 16, 16] = 1
    sigma = blurs.GAUSSIAN_BLUR[severity - 1]
    spread = blurs.gaussian_blur(dot, severity, draw())[0]
    assert spread[16, 17] / spread[16, 16] == pytest.approx(math.exp(-1 / (2 * sigma**2)))
    assert spread.sum() == pytest.approx(1)

    radius, rim = blurs.DEFOCUS_BLUR[severity - 1]
    disk = blurs.defocus_blur(dot, severity, draw())[0]
    assert disk.sum() == pytest.approx(1)
    if radius < 1:  # a disk of one pixel: the Gaussian alone, of 3 pixels
        assert disk[16, 17] / disk[16, 16] == pytest.approx(math.exp(-1 / (2 * rim**2)))
        assert np.count_nonzero(disk) == 9
    else:  # a cross of 5 pixels, a square of 9
        pixels = {1: 5, 1.5: 9}[radius]
        assert np.count_nonzero(disk > 0.5 / pixels) == pixels
        assert disk.max() == pytest.approx(1 / pixels, rel=1e-3)

    smear, sigma = blurs.MOTION_BLUR[severity - 1]
    seeds = range(20)
    first = []
    for seed in seeds:
        trace = blurs.motion_blur(dot, severity, draw(seed))[0]
        rows, columns = np.nonzero(trace)
        # a line that ends at the pixel and comes from one side, at 45 degrees at most
        assert (columns <= 16).all()
        assert (np.abs(rows - 16) <= np.abs(columns - 16)).all()
        assert len(columns) <= 2 * smear + 1
        assert trace[16, 16] == trace.max()
        first.append(trace[16, 16])
    half = np.exp(-(np.arange(2 * smear + 1) ** 2) / (2 * sigma**2))
    assert np.mean(first) == pytest.approx(1 / half.sum(), abs=0.5 / 255)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_zoom_blur_is_the_mean_of_magnified_images(rgb, severity):
    image = rgb[0].double().numpy()
    total, n = image.copy(), 1
    for factor in np.arange(1, blurs.ZOOM_BLUR[severity - 1], 0.01):
        kept = math.ceil(32 / factor)
        first = (32 - kept) // 2
        large = zoom(image[:, first : first + kept, first : first + kept], (1, factor, factor), order=1)
        trim = (large.shape[1] - 32) // 2
        total += large[:, trim : trim + 32, trim : trim + 32]
        n += 1
    assert n == (8, 13, 17, 22, 27)[severity - 1]
    assert np.allclose(blurs.zoom_blur(image, severity, draw()), total / n, atol=1e-12)


def test_glass_takes_each_pixel_from_above_or_from_the_left():
    image = np.arange(900).reshape(1, 30, 30) % 256 / 255  # no two neighbours alike; a Gaussian of 0.05 pixels is none
    out = blurs.glass_blur(image, 1, draw())
    inner = out[0, 2:, 2:]
    sources = [image[0, 2 - down : 30 - down, 2 - right : 30 - right] for down in (0, 1) for right in (0, 1)]
    share = [np.isclose(inner, source).mean() for source in sources]
    assert sum(share) == pytest.approx(1)
    assert share == pytest.approx([0.25] * 4, abs=4 * math.sqrt(0.25 * 0.75 / 784))
    assert np.allclose(out[0, :2], image[0, :2])
    assert np.allclose(out[0, :, :2], image[0, :, :2])
    twice = blurs.glass_blur(image, 4, draw())[0, 2:, 2:]
    assert not any(np.isclose(twice, source).mean() > 0.2 for source in sources)  # shifted again, and smoothed


@pytest.mark.parametrize("severity", SEVERITIES)
def test_fog_on_a_flat_image_spans_what_the_formula_says(severity):
    height = weather.FOG[severity - 1].height
    foggy = weather.fog(np.full((1, 32, 32), 0.5), severity, draw())
    assert foggy.min() == pytest.approx(0.25 / (0.5 + height))
    assert foggy.max() == pytest.approx(0.5)
    assert not weather.fog(np.zeros((1, 32, 32)), severity, draw()).any()  # scaled by the brightest pixel


def test_fog_is_rougher_where_its_detail_decays_less():
    def roughness(severity):
        fields = [weather.fog(np.full((1, 32, 32), 0.5), severity, draw(seed)) for seed in range(30)]
        return np.mean([np.diff(field[0]).std() / field.std() for field in fields])

    assert roughness(1) < roughness(3) < roughness(4) < roughness(5)
    assert roughness(1) == pytest.approx(roughness(2), rel=1e-9)  # both of decay 3: the same field, scaled


@pytest.mark.parametrize("severity", SEVERITIES)
def test_snow_falls_alike_on_an_image_and_on_its_half_turn(severity):
    fall = weather.SNOW[severity - 1]
    snowy = weather.snow(np.zeros((3, 32, 32)), severity, draw())
    assert np.allclose(snowy, snowy[:, ::-1, ::-1])
    ground = (1 - fall.kept) * 0.5  # how white black becomes without a flake
    assert snowy.min() == pytest.approx(ground, abs=1e-9) or severity == 5  # there no pixel is without
    assert snowy.max() > ground + 0.1
    # streaks of flakes are nearer the vertical than the horizontal
    flakes = [weather.snow(np.zeros((1, 32, 32)), severity, draw(seed))[0] for seed in range(40)]
    down, across = (np.mean([np.diff(f, axis=axis).std() for f in flakes]) for axis in (0, 1))
    assert down < across


@pytest.mark.parametrize("severity", SEVERITIES)
def test_frost_is_a_sum_and_its_texture_looks_like_the_photographs(severity):
    kept, covered = weather.FROST[severity - 1]
    image = np.linspace(0, 1, 3 * 32 * 32).reshape(3, 32, 32)
    frosted = weather.frost(image, severity, draw())
    assert np.allclose(frosted - weather.frost(0 * image, severity, draw()), kept * image)
    assert np.allclose(weather.frost(0 * image, severity, draw()), covered * weather.frost_texture((32, 32), draw()))


def test_generated_frost_has_the_moments_of_the_photographs():
    """Of 2,000 patches of the five photographs: colour (0.565, 0.648, 0.694), deviation within a patch 0.087, between
    the means of patches 0.151, between neighbours 0.105."""
    textures = np.stack([weather.frost_texture((32, 32), draw(seed)) for seed in range(1000)])
    luma = np.tensordot(weather.LUMA, textures, (0, 1))
    assert textures.mean((0, 2, 3)) == pytest.approx([0.565, 0.648, 0.694], abs=0.02)
    assert luma.std((1, 2)).mean() == pytest.approx(0.087, rel=0.05)
    assert luma.mean((1, 2)).std() == pytest.approx(0.151, rel=0.05)
    assert np.diff(luma, axis=2).std() == pytest.approx(0.105, rel=0.05)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_brightness_contrast_and_saturation_are_their_formulas(rgb, gray, severity):
    plus = weather.BRIGHTNESS[severity - 1]
    brighter = torch.floor(255 * (gray.double() + plus).clamp(max=1) + 1e-5) / 255
    assert torch.allclose(corrupted(gray, "brightness", severity).double(), brighter, atol=1e-6)
    left = digital.CONTRAST[severity - 1]
    x = rgb[0].double().numpy()
    flatter = digital.contrast(x, severity, draw())
    assert flatter.mean((1, 2)) == pytest.approx(x.mean((1, 2)))
    assert flatter.std((1, 2)) == pytest.approx(left * x.std((1, 2)))
    times, more = digital.SATURATE[severity - 1]
    for image in rgb[:8].double().numpy():
        hsv = color.rgb2hsv(image, channel_axis=0)
        value, saturation = hsv.copy(), hsv.copy()
        value[2] = np.minimum(hsv[2] + plus, 1)
        saturation[1] = np.minimum(times * hsv[1] + more, 1)
        for change, wanted in ((weather.brightness, value), (digital.saturate, saturation)):
            assert np.allclose(change(image, severity, draw()), color.hsv2rgb(wanted, channel_axis=0), atol=1e-9)


def test_saturation_leaves_gray_images_until_it_tints_them(gray):
    for severity in (1, 2, 3):
        assert torch.equal(corrupted(gray, "saturate", severity), gray)
    for severity, more in ((4, 0.1), (5, 0.2)):
        darker = torch.floor(255 * gray.double() * (1 - more * (0.587 + 0.114)) + 1e-5) / 255
        assert torch.allclose(corrupted(gray, "saturate", severity).double(), darker, atol=1e-6)


@pytest.mark.parametrize("severity", SEVERITIES)
def test_pixelate_leaves_as_many_blocks_as_its_share(severity):
    image = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    out = corrupted(image, "pixelate", severity)[0, 0]
    blocks = int(32 * digital.PIXELATE[severity - 1])
    assert blocks == (30, 28, 27, 24, 20)[severity - 1]
    for lines in (out, out.T):
        assert int((lines[1:] != lines[:-1]).any(1).sum()) == blocks - 1


def test_elastic_transforms_are_affine_at_first_and_local_then():
    ramps = np.stack([np.tile(np.arange(48.0), (48, 1)), np.tile(np.arange(48.0)[:, None], (1, 48))]) / 47
    inner = (slice(None), slice(16, 32), slice(16, 32))
    bends = []
    for severity in SEVERITIES:
        alpha, _, corners = digital.ELASTIC_TRANSFORM[severity - 1]
        moved = 47 * (digital.elastic_transform(ramps, severity, draw()) - ramps)[inner]
        bends.append(np.abs(np.diff(moved, n=2, axis=2)).max())
        assert 0.1 < np.abs(moved).max() < 3 * corners + alpha
    assert bends[0] < 1e-9
    assert bends[0] < bends[1] < bends[2] < bends[3] < bends[4]


@pytest.mark.parametrize("severity", SEVERITIES)
def test_spatter_is_water_first_and_mud_then(severity):
    drops = spatter.SPATTER[severity - 1]
    black, white = np.zeros((3, 32, 32)), np.ones((3, 32, 32))
    if drops.mud:
        out = spatter.spatter(white, severity, draw())
        cover = (1 - out) / (1 - spatter.MUD)
        assert np.allclose(cover[0], cover[1])
        assert np.allclose(cover[0], cover[2])
        dry = np.isclose(cover[0], 0)
        assert cover[0][~dry].min() >= 0.8
    else:
        out = spatter.spatter(black, severity, draw())
        cover = out / spatter.WATER
        assert np.allclose(cover[0], cover[1])
        assert np.allclose(cover[0], cover[2])
        assert cover.max() == pytest.approx(drops.depth)
        dry = cover[0] == 0
    assert 0.3 < dry.mean() < 0.999


def test_edges_of_a_bright_square_are_its_outline():
    levels = np.zeros((20, 20))
    levels[5:15, 5:15] = 200
    edges = spatter._edges(levels, 50, 150)
    near = np.zeros((20, 20), dtype=bool)
    near[4:16, 4:16] = True
    near[6:14, 6:14] = False
    assert edges.any()
    assert not edges[~near].any()
    assert edges[5:15].any(1).all()  # each row of the square has an edge, and each column
    assert edges[:, 5:15].any(0).all()
    assert not spatter._edges(levels / 20, 50, 150).any()  # steps of 10 levels: a gradient of 40
    distance = spatter._distance(np.pad(np.ones((1, 1), dtype=bool), 3))
    assert distance[3, 6] == pytest.approx(3)
    assert distance[6, 6] == pytest.approx(4.2)
    assert distance[4, 5] == pytest.approx(2.1969)
    assert distance[4, 6] == pytest.approx(1 + 2.1969)
