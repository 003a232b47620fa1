"""The statistics of a certificate: exact confidence bounds, radii, and draws taken in stages. Imports no torch.

A smoothed classifier answers with the class that the base classifier gives most often to `image + sigma * normal`.
If that class has a probability of at least p > 1/2, the answer is constant within an L2 radius of
sigma * Phi^-1(p) (Cohen et al., theorem 1). CERTIFY estimates p from below with confidence 1 - alpha.
"""

import math
from dataclasses import dataclass

from scipy.stats import beta, norm

GIVE_UP = 0.01  # chance at which a radius that could still be certified is given up


def lower_bound(successes: int, draws: int, alpha: float) -> float:
    """Return the exact one-sided lower confidence bound (Clopper-Pearson) of a binomial share, at level 1 - alpha."""
    if not 0 <= successes <= draws or draws < 1:
        raise ValueError(f"expected 0 <= successes <= draws and draws >= 1, got {successes} of {draws}")
    return float(beta.ppf(alpha, successes, draws - successes + 1)) if successes else 0.0


def radius(successes: int, draws: int, alpha: float, sigma: float) -> float:
    """Return the certified L2 radius in [0, 1] pixel units; 0 means that the classifier abstains."""
    bound = lower_bound(successes, draws, alpha)
    return sigma * float(norm.ppf(bound)) if bound > 0.5 else 0.0


def largest_radius(draws: int, alpha: float, sigma: float) -> float:
    """Return the radius that `draws` certify when all of them agree: no outcome can certify more."""
    return radius(draws, draws, alpha, sigma)


@dataclass(frozen=True)
class Plan:
    """A schedule of draws in stages, which share the error probability.

    The guess of the class uses `selection` draws of its own. Stages hold growing totals of draws; each tests at
    alpha / (number of stages), so by the union bound all of them together err with probability alpha at most,
    whenever the last one stops. Stopping without a certificate is always sound.
    """

    sigma: float
    radii: tuple[float, ...]
    draws: int = 10_000
    selection: int = 100
    alpha: float = 0.001
    staged: bool = True

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ValueError(f"sigma={self.sigma:g}: expected a noise level above 0, in [0, 1] pixel units")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha={self.alpha:g}: expected an error probability between 0 and 1")
        if self.draws < 1 or self.selection < 1:
            raise ValueError(f"draws={self.draws}, selection={self.selection}: expected at least 1 of each")
        if not self.radii or min(self.radii) <= 0:
            raise ValueError(f"radii={list(self.radii)}: expected at least one radius above 0")
        most = largest_radius(self.draws, self.alpha / len(self.stages), self.sigma)
        if max(self.radii) > most:
            enough = self._enough(max(self.radii))
            raise ValueError(
                f"radii={max(self.radii):g}: {self.draws} draws at sigma={self.sigma:g} certify at most {most:.4g}; "
                + (f"take draws={enough} or a larger sigma" if enough else "take a larger sigma")
            )

    @property
    def stages(self) -> tuple[int, ...]:
        """Totals of draws after which the bound is tested: tenths of tenths of `draws`, from 100 on."""
        if not self.staged:
            return (self.draws,)
        totals, total = [], self.draws
        while total >= 100 and len(totals) < 3:
            totals.append(total)
            total //= 10
        return tuple(reversed(totals or [self.draws]))

    def bound(self, successes: int, draws: int) -> float:
        """Return the lower bound that one stage claims."""
        return lower_bound(successes, draws, self.alpha / len(self.stages))

    def certified(self, successes: int, draws: int) -> float:
        """Return the radius that one stage claims; 0 if it abstains."""
        return radius(successes, draws, self.alpha / len(self.stages), self.sigma)

    def is_over(self, successes: int, draws: int) -> bool:
        """Return whether to stop drawing: no radius above the certified one is likely to be certified any more.

        Giving up is sound at any time, since an abstention claims nothing; it costs certificates, not validity. A
        radius counts as out of reach if the share of agreeing draws it needs exceeds a 99 % upper confidence bound.
        """
        if draws >= self.draws:
            return True
        certified = self.certified(successes, draws)
        highest = float(beta.ppf(1 - GIVE_UP, successes + 1, draws - successes)) if successes < draws else 1.0
        reachable = self.sigma * float(norm.ppf(highest))
        return not any(certified < wanted <= reachable for wanted in self.radii)

    def _enough(self, wanted: float) -> int | None:
        """The least power-of-ten multiple of draws that certifies the radius, up to ten million."""
        for draws in (10**power for power in range(2, 8)):
            if draws > self.draws:
                stages = min(3, max(1, int(math.log10(draws)) - 1)) if self.staged else 1
                if largest_radius(draws, self.alpha / stages, self.sigma) >= wanted:
                    return draws
        return None
