"""Proxies: how well do cheap quantities tell which labelings will confirm? Rank correlations, and what each costs.

On every image set, labelings of several strata are confirmed: random ones, class tasks, class tasks with a part of
their positives exchanged, pixel statistics, and labelings that searchers found there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import spearmanr

from tdbench.arena.campaign import run_all
from tdbench.base.errors import UserError
from tdbench.base.rng import Stream, permutation, random_labelings, replicate_seeds
from tdbench.base.stats import Estimate, mean_interval
from tdbench.engine.protocol import TrainingProtocol
from tdbench.engine.reference import Network, network, torch_threads
from tdbench.report.style import MARKERS, SERIES
from tdbench.settings import RunSettings
from tdbench.space.executor import Request, study_request
from tdbench.space.image_set import ImageSet
from tdbench.space.labelings import ablate
from tdbench.space.task_space import TaskSpace
from tdbench.store.confirmations import tag_of
from tdbench.store.result import Result
from tdbench.studies._common import TrainingSettings, interval_words, label_axes, panels, setting, shown
from tdbench.studies._lab import Findings, Lab
from tdbench.toolkit.quadratic import form_values, leave_one_out_form
from tdbench.toolkit.tangent import tangent_kernel

STRATA = ("random", "ablated", "class", "pixel", "found")
QUICK = {
    "searchers": ("cmaes",),
    "n": 20,
    "replicates": 4,
    "steps": 30,
    "random": 4,
    "ablations": 1,
    "budget": 32,
    "batch": 16,
    "short_steps": 10,
}


@dataclass(frozen=True)
class Settings(TrainingSettings):
    n: int = setting(50, "Images in a set.")
    ratio: int = setting(4, "Negatives per positive.")
    random: int = setting(8, "Random labelings of each set.")
    ablations: int = setting(3, "Labelings made from each class task, by exchanging more and more of it.")
    searchers: tuple[str, ...] | None = setting(("cmaes", "ntk-loo"), "Searchers that give the stratum `found`.")
    budget: int = setting(96, "Evaluations of each of their runs.")
    batch: int = setting(32, "Labelings that they are asked for at a time.")
    ridge: float = setting(0.1, "Ridge of the leave-one-out error, for a kernel of mean diagonal 1.")
    initializations: int = setting(8, "Networks over which kernel and gradient norm are averaged.")
    short_steps: int = setting(20, "Steps of the short run whose training losses are summed.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("random", "ablations", "initializations"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.ridge > 0:
            raise UserError(f"ridge must be above 0, got {self.ridge:g}")
        TrainingProtocol(self.short_steps, self.lr)


@dataclass(frozen=True)
class Proxy:
    """A quantity that should rise with taskness: (L, N) labels of a space -> (L,), with its cost in trainings."""

    name: str
    trainings: float
    compute: Callable[[TaskSpace, NDArray[np.uint8]], NDArray[np.float64]]


def study(settings: Settings, lab: Lab) -> Findings:
    """Confirm every labeling, compute every proxy, and correlate the two in each set."""
    source = lab.source(settings.data)
    spaces = [
        TaskSpace(source, n=settings.n, ratio=settings.ratio, seed=seed, steps=settings.steps, lr=settings.lr)
        for seed in settings.set_seeds
    ]
    runs = _found(settings, lab)
    found = [
        [run.labels for run in runs if run.space.identity == space.identity and run.labels is not None]
        for space in spaces
    ]
    labelings = [_labelings(settings, space, of_set) for space, of_set in zip(spaces, found, strict=True)]
    requests = [
        study_request(space, np.stack([y for _, y in lot]), space.seed, settings.replicates)
        for space, lot in zip(spaces, labelings, strict=True)
    ]
    confirmed = [values.mean(axis=1) for values in lab.taskness(requests, "confirming labelings")]
    proxies = _proxies(settings, lab)
    points = []
    for space, lot, taskness in zip(spaces, labelings, confirmed, strict=True):
        labels = np.stack([y for _, y in lot])
        columns = {proxy.name: proxy.compute(space, labels) for proxy in proxies}
        points.append(
            pd.DataFrame({"set": space.seed, "stratum": [s for s, _ in lot], "confirmed": taskness, **columns})
        )
    every = pd.concat(points, ignore_index=True)
    correlations = {proxy.name: _correlation(every, proxy.name) for proxy in proxies}
    unselected = {proxy.name: _correlation(every[every["stratum"] != "found"], proxy.name) for proxy in proxies}
    table = pd.DataFrame(
        {
            "proxy": [p.name for p in proxies],
            "trainings": [p.trainings for p in proxies],
            "spearman": [correlations[p.name].value for p in proxies],
            "low": [correlations[p.name].low for p in proxies],
            "high": [correlations[p.name].high for p in proxies],
            "spearman_without_found": [unselected[p.name].value for p in proxies],
            "low_without_found": [unselected[p.name].low for p in proxies],
            "high_without_found": [unselected[p.name].high for p in proxies],
            "sets": settings.sets,
            "labelings_per_set": len(every) / settings.sets,
            "replicates": settings.replicates,
        }
    )
    failed = len(runs) - sum(map(len, found))
    paragraph = _paragraph(settings, source.name, every, table, failed)
    return Findings(table, _figure(every, proxies, correlations), paragraph)


def _found(settings: Settings, lab: Lab) -> list[Result]:
    """Short runs of the searchers on every set. They are stored in the study's folder."""
    engine, device = lab.engine_words
    runs = [
        RunSettings(
            searcher=searcher, data=settings.data, n=settings.n, ratio=settings.ratio, space_seed=seed,
            budget=settings.budget, batch=settings.batch, confirm=2, steps=settings.steps, lr=settings.lr,
            engine=engine, device=device,
        )
        for seed in settings.set_seeds
        for searcher in settings.searchers or ()
    ]  # fmt: skip
    return run_all(runs, lab.run_options("proxies"), lab.plugins()) if runs else []


def _labelings(
    settings: Settings, space: TaskSpace, found: list[NDArray[np.uint8]]
) -> list[tuple[str, NDArray[np.uint8]]]:
    """(stratum, labels) of a set, each labeling once."""
    lot = [("found", y) for y in found]
    lot += [(task.kind, task.labels) for task in space.reference_tasks]
    for c, task in enumerate(space.reference_tasks):
        if task.kind == "class":
            order = permutation(space.n, Stream.EXCHANGES, (np.int64(space.seed), np.int64(c)), lane=1)
            for a in range(1, settings.ablations + 1):
                exchanged = max(1, round(a * 0.5 * space.n_positives / settings.ablations))
                lot.append(("ablated", ablate(task.labels, exchanged, order[None])[0]))
    for y in random_labelings(settings.random, space.n, space.n_positives, space.seed, lane=2):
        lot.append(("random", y))
    return list({y.tobytes(): (stratum, y) for stratum, y in reversed(lot)}.values())


def _proxies(settings: Settings, lab: Lab) -> list[Proxy]:
    networks = settings.initializations

    @functools.cache
    def kernel(space: TaskSpace) -> NDArray[np.float64]:
        return tangent_kernel(space.images, networks, threads=1)

    def leave_one_out(space: TaskSpace, labels: NDArray[np.uint8]) -> NDArray[np.float64]:
        return -form_values(leave_one_out_form(kernel(space), settings.ridge), labels.astype(bool))

    return [
        Proxy("NTK leave-one-out error", 0, leave_one_out),
        Proxy("kernel-target alignment", 0, lambda space, labels: alignment(kernel(space), labels)),
        Proxy("gradient norm at start", 0, lambda space, labels: gradient_norm(space, labels, networks)),
        Proxy("summed training loss", settings.short_steps / settings.steps,
              lambda space, labels: -_summed_training_loss(settings, lab, space, labels)),
        Proxy("one training", 1, lambda space, labels: _one_training(lab, space, labels)),
    ]  # fmt: skip


def alignment(kernel: NDArray[np.float64], labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(L,) centred kernel-target alignment of (L, N) labels (Cortes, Mohri & Rostamizadeh, JMLR 2012, eq. 8)."""
    y = labels - labels.mean(axis=1, keepdims=True)
    rows = kernel - kernel.mean(axis=0, keepdims=True)
    centred = rows - rows.mean(axis=1, keepdims=True)
    agreement = np.einsum("li,ij,lj->l", y, centred, y, optimize=True)
    result: NDArray[np.float64] = agreement / (np.linalg.norm(centred) * (y**2).sum(axis=1))
    return result


def gradient_norm(image_set: ImageSet, labels: NDArray[np.uint8], initializations: int) -> NDArray[np.float64]:
    """(L,) norm of the gradient of the mean cross-entropy over all images, at initialization.

    The mean over networks. The loss depends on the weights through the logit difference d of each image, so its
    gradient is J'(sigmoid(d) - y) / N with J the (N, 61326) Jacobian of the differences.
    """
    seeds = replicate_seeds(Stream.TANGENT, 0, 0, [0], initializations)[0]
    x = torch.from_numpy(np.array(image_set.images))
    norms = np.zeros((initializations, len(labels)))
    with torch_threads(1):  # many small steps; several threads would wait for each other most of the time
        for i, seed in enumerate(seeds):
            difference, jacobian = _jacobian(network(int(seed)), x)
            residual = 1 / (1 + np.exp(-difference))[None] - labels
            norms[i] = np.linalg.norm(residual @ jacobian, axis=1) / image_set.n
    mean: NDArray[np.float64] = norms.mean(axis=0)
    return mean


def _jacobian(net: Network, x: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows, differences = [], []
    with torch.enable_grad():
        logits = net(x)
        for d in logits[:, 1] - logits[:, 0]:
            differences.append(float(d.detach()))
            gradients = torch.autograd.grad(d, list(net.parameters()), retain_graph=True)
            rows.append(torch.cat([g.flatten() for g in gradients]).double().numpy())
    return np.array(differences), np.stack(rows)


def _summed_training_loss(
    settings: Settings, lab: Lab, space: TaskSpace, labels: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """(L,) training losses of one short run on all images, summed over its steps (Ru et al., NeurIPS 2021).

    Engines return the loss of the validation side, so a second copy of the images is the validation side.
    """

    def compute() -> NDArray[np.float64]:
        protocol = TrainingProtocol(settings.short_steps, settings.lr)
        twice = ImageSet(np.concatenate([space.images, space.images]), 2 * space.n_positives, protocol)
        seeds = np.repeat(replicate_seeds(Stream.STUDY, space.seed, 1, [0], 1), len(labels), axis=0)
        train = np.tile(np.arange(2 * space.n) < space.n, (len(labels), 1))
        [curves] = lab.evaluator.curves([Request(twice, np.tile(labels, 2), seeds, train)])
        summed: NDArray[np.float64] = curves[:, 0].sum(axis=1, dtype=np.float64)
        return summed

    words = (space.identity, settings.short_steps, settings.lr, tag_of(lab.engine), labels.tobytes().hex())
    key = f"summed training loss {' '.join(map(str, words))}"
    return lab.remembered(key, compute)


def _one_training(lab: Lab, space: TaskSpace, labels: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(L,) taskness of one training for each labeling, on seeds of its own, as a searcher would be told it."""
    seeds = replicate_seeds(Stream.STUDY, space.seed, 2, np.arange(len(labels)), 1)
    return lab.taskness([Request(space, labels, seeds)], "one training each")[0][:, 0]


def _correlation(points: pd.DataFrame, proxy: str) -> Estimate:
    """Spearman's correlation with confirmed taskness: the mean over image sets, with its interval over sets."""
    return mean_interval([float(spearmanr(lot[proxy], lot["confirmed"]).statistic) for _, lot in points.groupby("set")])


def _figure(points: pd.DataFrame, proxies: list[Proxy], correlations: dict[str, Estimate]) -> Figure:
    figure, grid = panels(2, 3, width=9.0, height=6.0, sharey=True)
    for axes, proxy in zip(grid.flat, proxies, strict=False):
        for i, stratum in enumerate(STRATA):
            part = points[points["stratum"] == stratum]
            axes.scatter(part[proxy.name], part["confirmed"], s=14, marker=MARKERS[i], color=SERIES[i], alpha=0.75,
                         linewidths=0, label=stratum)  # fmt: skip
        title = f"{proxy.name}\nSpearman {shown(correlations[proxy.name])}, {_cost(proxy.trainings)}"
        label_axes(axes, "value (errors and losses negated)", "confirmed taskness", title)
        axes.label_outer()
        axes.tick_params(labelbottom=True)
    last: Any = grid.flat[-1]
    last.set_axis_off()
    handles, names = grid.flat[0].get_legend_handles_labels()
    last.legend(handles, names, loc="center", fontsize=9, frameon=False, title="labelings")
    return figure


def _paragraph(settings: Settings, source: str, points: pd.DataFrame, table: pd.DataFrame, failed: int) -> str:
    best = table.sort_values("spearman", ascending=False)
    parts = []
    for row in best.itertuples():
        estimate = Estimate(row.spearman, row.low, row.high, settings.sets)
        parts.append(f"{row.proxy} {shown(estimate)} at {_cost(row.trainings)} a labeling")
    estimates = [Estimate(row.spearman, row.low, row.high, settings.sets) for row in best.itertuples()]
    without = ", ".join(f"{row.proxy} {row.spearman_without_found:.2f}" for row in best.itertuples())
    missing = f" {failed} of the searchers' runs failed." if failed else ""
    return (
        f"{len(points)} labelings of {settings.sets} image sets of {source} (N = {settings.n}, 1:{settings.ratio}), "
        f"each confirmed on {settings.replicates} replicates. Spearman's correlation with confirmed taskness, mean "
        f"over sets{interval_words(estimates)}: {'; '.join(parts)}. Without the labelings that searchers found, some "
        f"of which were chosen by such a quantity: {without}.{missing}"
    )


def _cost(trainings: float) -> str:
    return f"{trainings:.2g} training{'' if trainings == 1 else 's'}"
