"""The papers the studio stands on, and how to cite them."""

__all__ = [
    "FAST_SPLITTING", "FIREFLY", "FORWARD_SELECTION", "FUSEDREAM", "HARMLESS", "SIGNED_SPLITTING", "SPLITTING", "Paper",
    "bibtex",
]  # fmt: skip

from dataclasses import dataclass


@dataclass(frozen=True)
class Paper:
    """One paper: `key` for BibTeX, authors as BibTeX wants them, the arXiv number."""

    key: str
    title: str
    authors: str
    year: int
    arxiv: str

    @property
    def link(self) -> str:
        """Return the address of the abstract page."""
        return f"https://arxiv.org/abs/{self.arxiv}"


FUSEDREAM = Paper(
    key="liu2021fusedream",
    title="FuseDream: Training-Free Text-to-Image Generation with Improved CLIP+GAN Space Optimization",
    authors="Liu, Xingchao and Gong, Chengyue and Wu, Lemeng and Zhang, Shujian and Su, Hao and Liu, Qiang",
    year=2021,
    arxiv="2112.01573",
)
HARMLESS = Paper(
    key="gong2022fill",
    title="How to Fill the Optimum Set? Population Gradient Descent with Harmless Diversity",
    authors="Gong, Chengyue and Wu, Lemeng and Liu, Qiang",
    year=2022,
    arxiv="2202.08376",
)
FORWARD_SELECTION = Paper(
    key="ye2020greedy",
    title="Greedy Optimization Provably Wins the Lottery: Logarithmic Number of Winning Tickets is Enough",
    authors="Ye, Mao and Wu, Lemeng and Liu, Qiang",
    year=2020,
    arxiv="2010.15969",
)
SPLITTING = Paper(
    key="wu2019splitting",
    title="Splitting Steepest Descent for Growing Neural Architectures",
    authors="Wu, Lemeng and Wang, Dilin and Liu, Qiang",
    year=2019,
    arxiv="1910.02366",
)
FAST_SPLITTING = Paper(
    key="wang2019energy",
    title="Energy-Aware Neural Architecture Optimization with Fast Splitting Steepest Descent",
    authors="Wang, Dilin and Li, Meng and Wu, Lemeng and Chandra, Vikas and Liu, Qiang",
    year=2019,
    arxiv="1910.03103",
)
SIGNED_SPLITTING = Paper(
    key="wu2020steepest",
    title="Steepest Descent Neural Architecture Optimization: Escaping Local Optimum with Signed Neural Splitting",
    authors="Wu, Lemeng and Ye, Mao and Lei, Qi and Lee, Jason D. and Liu, Qiang",
    year=2020,
    arxiv="2003.10392",
)
FIREFLY = Paper(
    key="wu2020firefly",
    title="Firefly Neural Architecture Descent: a General Approach for Growing Neural Networks",
    authors="Wu, Lemeng and Liu, Bo and Stone, Peter and Liu, Qiang",
    year=2020,
    arxiv="2102.08574",
)


def bibtex(paper: Paper) -> str:
    """Return the BibTeX entry of a paper."""
    return (
        f"@article{{{paper.key},\n  title = {{{paper.title}}},\n  author = {{{paper.authors}}},\n"
        f"  journal = {{arXiv preprint arXiv:{paper.arxiv}}},\n  year = {{{paper.year}}}\n}}"
    )
