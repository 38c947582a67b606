"""Measure the bias of the Fréchet distance for few points, and after extrapolation.

    python benchmarks/frechet.py [--repeats 30]

Gaussians whose distance is known, drawn anew each time: the plain estimate, the extrapolated one,
and both with a covariance shrunk towards a sphere (Ledoit and Wolf 2004) instead of the plain one.
"""

import argparse

import numpy as np

from tonewood.evaluation import metrics
from tonewood.evaluation.metrics import Gaussian, extrapolate_frechet_distance, fit_gaussian, frechet_distance

SIZES = ((16, 60), (32, 60), (32, 120), (32, 300))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=30)
    repeats = parser.parse_args().repeats
    print("| features | points | true | plain | extrapolated | shrunk | shrunk, extrapolated |")
    print("|---:|---:|---:|---:|---:|---:|---:|")
    for features, count in SIZES:
        for shift, scale in ((0.0, 1.0), (0.3, 1.3)):
            rng = np.random.default_rng(0)
            root = rng.standard_normal((features, features))
            first = Gaussian(np.zeros(features), root @ root.T / features + 0.3 * np.eye(features))
            second = Gaussian(first.mean + shift, scale**2 * first.covariance)
            repetitions = np.array([estimates(first, second, count, rng) for _ in range(repeats)])
            cells = " | ".join(f"{value:.1f}" for value in repetitions.mean(axis=0))
            true_distance = frechet_distance(first, second)
            print(f"| {features} | {count} | {true_distance:.1f} | {cells} |", flush=True)


def estimates(first: Gaussian, second: Gaussian, count: int, rng: np.random.Generator) -> list[float]:
    samples = [
        list(rng.multivariate_normal(gaussian.mean, gaussian.covariance, size=count)[:, None])
        for gaussian in (first, second)
    ]
    distances = []
    for fit in (fit_gaussian, shrunk):
        metrics.fit_gaussian = fit
        estimate = extrapolate_frechet_distance(*samples, rng)
        distances += [estimate.plain, estimate.distance]
    return distances


def shrunk(points: np.ndarray) -> Gaussian:
    """Return a covariance shrunk towards a sphere by the optimal share (Ledoit and Wolf 2004)."""
    mean = points.mean(axis=0)
    centred = points - mean
    count, features = centred.shape
    covariance = centred.T @ centred / count
    sphere = np.trace(covariance) / features * np.eye(features)
    fourth = np.square(np.square(centred).sum(axis=1)).mean()
    noise = (fourth - np.square(covariance).sum()) / count
    share = min(1.0, noise / np.square(covariance - sphere).sum())
    return Gaussian(mean, (1 - share) * covariance + share * sphere)


if __name__ == "__main__":
    main()
