"""Every first-party searcher and reduction holds the contract that third-party ones are asked to hold."""

from __future__ import annotations

from tdbench.testing import ReductionContract, SearcherContract


class TestRandom(SearcherContract):
    name = "random"


class TestTwoPointsDE(SearcherContract):
    name = "twopointsde"


class TestCMAES(SearcherContract):
    name = "cmaes"


class TestTPE(SearcherContract):
    name = "tpe"


class TestClusteredRandom(SearcherContract):
    name = "clustered-random"


class TestUMDA(SearcherContract):
    name = "umda"


class TestCGA(SearcherContract):
    name = "cga"


class TestSwapAnnealing(SearcherContract):
    name = "swap-annealing"


class TestResamplingSwapAnnealing(SearcherContract):
    name = "swap-annealing:resample"


class TestNevergradVariant(SearcherContract):
    name = "nevergrad:DiscreteOnePlusOne"


class TestNevergradVariantThatDrawsFromTheGlobalGenerator(SearcherContract):
    name = "nevergrad:VoronoiDE"


class TestNevergradVariantWithARecommendationOfItsOwn(SearcherContract):
    name = "nevergrad:TBPSA"
    baseline = True


class TestOptunaVariant(SearcherContract):
    name = "optuna:NSGAIISampler"


class TestIdentity(ReductionContract):
    name = "identity"


class TestPCA(ReductionContract):
    name = "pca"


class TestFeatures(ReductionContract):
    name = "features"


class TestNTK(ReductionContract):
    name = "ntk"


class TestClusters(ReductionContract):
    name = "clusters"
