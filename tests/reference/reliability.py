"""Eq. 1 as one would write it on a blackboard: loops over neurons, images and trials."""

import numpy as np


def slow_variances(responses: np.ndarray, image_ids: list[str], correction: str) -> tuple[list[float], list[float]]:
    """Return `sigma_a^2` and `eta_a^2`, neuron by neuron."""
    ddof = 1 if correction == "unbiased" else 0
    signal, noise = [], []
    for neuron in range(responses.shape[1]):
        means, variances, one_over_repeats = [], [], []
        for image in sorted(set(image_ids)):
            trials = [float(r[neuron]) for r, shown in zip(responses, image_ids, strict=True) if shown == image]
            if len(trials) < 2:
                continue
            mean = sum(trials) / len(trials)
            means.append(mean)
            variances.append(sum((r - mean) ** 2 for r in trials) / (len(trials) - ddof))
            one_over_repeats.append(1 / len(trials))
        eta2 = sum(variances) / len(variances)
        grand = sum(means) / len(means)
        sigma2 = sum((m - grand) ** 2 for m in means) / (len(means) - ddof)
        if correction == "unbiased":
            sigma2 = max(0.0, sigma2 - eta2 * sum(one_over_repeats) / len(one_over_repeats))
        signal.append(sigma2)
        noise.append(eta2)
    return signal, noise


def slow_snr(responses: np.ndarray, image_ids: list[str], correction: str) -> np.ndarray:
    """Return `w_a = sigma_a / eta_a`, 0 where a neuron has no noise."""
    signal, noise = slow_variances(responses, image_ids, correction)
    return np.array([(s / n) ** 0.5 if n > 0 else 0.0 for s, n in zip(signal, noise, strict=True)])


def slow_oracle_correlation(responses: np.ndarray, image_ids: list[str]) -> np.ndarray:
    """Return, neuron by neuron, the correlation of each trial with the mean of the image's other trials."""
    correlations = []
    for neuron in range(responses.shape[1]):
        own, others = [], []
        for t, image in enumerate(image_ids):
            rest = [float(responses[u, neuron]) for u, shown in enumerate(image_ids) if shown == image and u != t]
            if rest:
                own.append(float(responses[t, neuron]))
                others.append(sum(rest) / len(rest))
        correlations.append(float(np.corrcoef(own, others)[0, 1]))
    return np.array(correlations)
