"""The study of proxies: the quantities themselves, and the labelings they are tried on."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

from tdbench.base.rng import Stream, replicate_seeds
from tdbench.engine import make_engine
from tdbench.engine.reference import network
from tdbench.settings import Options
from tdbench.space.task_space import TaskSpace
from tdbench.studies._lab import Lab
from tdbench.studies.proxies import STRATA, Settings, _labelings, alignment, gradient_norm, study

TINY = {"n": 10, "sets": 4, "replicates": 2, "steps": 5, "short_steps": 5, "random": 2, "ablations": 1}


def test_alignment_is_one_for_the_kernel_of_the_labels_themselves():
    labels = TaskSpace(n=10).random_labelings(3)
    y = labels[0] - labels[0].mean()
    values = alignment(np.outer(y, y), labels)
    np.testing.assert_allclose(values[0], 1)
    assert (values[1:] < 0.999).all()
    np.testing.assert_allclose(alignment(np.outer(y, y) + 5, labels), values)  # a constant says nothing of labels


def test_gradient_norm_is_that_of_plain_autograd():
    space = TaskSpace(n=10)
    labels = space.random_labelings(2)
    expected = []
    for y in labels:
        norms = []
        for seed in replicate_seeds(Stream.TANGENT, 0, 0, [0], 2)[0]:
            net = network(int(seed))
            loss = F.cross_entropy(net(torch.tensor(space.images)), torch.tensor(y.astype(np.int64)))
            gradients = torch.autograd.grad(loss, list(net.parameters()))
            norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))
        expected.append(np.mean(norms))
    np.testing.assert_allclose(gradient_norm(space, labels, 2), expected, rtol=1e-4)


def test_labelings_of_every_stratum_have_p_positives_and_none_comes_twice():
    space = TaskSpace(n=50, seed=1)
    found = space.random_labelings(2, seed=7)
    lot = _labelings(Settings(), space, [*found, space.reference_tasks[0].labels])
    assert {stratum for stratum, _ in lot} == set(STRATA)
    labels = np.stack([y for _, y in lot])
    assert (labels.sum(axis=1) == space.n_positives).all()
    assert len(np.unique(labels, axis=0)) == len(labels)
    overlap = [
        max(int(y @ t.labels) for t in space.reference_tasks if t.kind == "class") for s, y in lot if s == "ablated"
    ]
    assert sorted(set(overlap)) == [5, 7, 8]  # of ten positives 5, 3 and 2 were exchanged


def test_every_proxy_has_a_correlation_and_a_cost(tmp_path):
    with Lab(Options(out=tmp_path), make_engine()) as lab:
        findings = study(Settings(searchers=None, **TINY), lab)
    table = findings.table.set_index("proxy")
    assert table["spearman"].between(-1, 1).all()
    assert table.loc["NTK leave-one-out error", "trainings"] == 0
    assert table.loc["summed training loss", "trainings"] == 1
    assert "NTK leave-one-out error" in findings.paragraph
