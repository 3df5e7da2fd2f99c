"""The noise that is shown is the noise that is said."""

import numpy as np

from neuroprior.report.image_drawings import noisy_images


def test_noise_is_the_same_along_a_row_and_clipped_for_display_only() -> None:
    images = np.full((2, 8, 8), 0.5, dtype=np.float32)
    figure = noisy_images(images, ("a", "b"), (0.0, 0.05, 0.1))
    shown = np.array([axes.get_images()[0].get_array() for axes in figure.axes]).reshape(2, 3, 8, 8) / 255.0
    assert np.allclose(shown[:, 0], 0.5, atol=1 / 255)
    assert np.allclose(2 * (shown[:, 1] - 0.5), shown[:, 2] - 0.5, atol=3 / 255)
    assert not np.allclose(shown[0, 2], shown[1, 2], atol=0.05)
    assert (images == 0.5).all()
