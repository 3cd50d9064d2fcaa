"""Whether a learned field could be the score of a diffusing density at all.

The Fokker-Planck residual and consistency are those of `regularizers.py`. The curl is the share of the antisymmetric
part |J - J^T|^2 / 4 of the Jacobian J of N = sigma s in |J|^2: 0 for a gradient, 1 for a rotation. On a torus a field
without curl need not be a gradient: its circulation, the integral once around, must vanish too.
"""

import torch
from torch import Tensor

from utils.evaluation.estimates import BINS, Curve, Estimate, NoValue, points_at, stratified_times, with_curve
from utils.evaluation.registry import WHERE, Subject, metric, shared
from utils.score.derivatives import derivatives
from utils.score.regularizers import Consistency
from utils.score.residuals import residual_from

LAI = "Lai et al. 2022"
FORMS = {
    "score_fpe": "eps = d_t s - sigma sigma_dot grad(div s + |s|^2)",
    "advective": "eps = d_t s - sigma sigma_dot (2 (s.grad) s + lap s)",
}
CHUNK = 500  # points whose derivatives are carried together
LOOP_POINTS = 64  # around the torus; a random first one leaves the integral unbiased where the field is steep
TIME_STEPS, STEPS = 100, 5  # of the trajectories of the consistency gap


@shared
def _field(subject: Subject, where: str) -> dict[str, Tensor]:
    """Return |eps_hat|^2 of both forms, means over components, tr J J^T and tr J J, all (bin, point)."""
    points = points_at(where, subject.truth, subject.effort.per_bin["field"], subject.generator("field"))
    parts = []
    for x, t in zip(*(tensor.double().split(CHUNK) for tensor in points), strict=True):
        d = derivatives(subject.precise, x, t)
        rows = [residual_from(d, subject.precise, t, form).square().mean(-1) for form in FORMS]
        rows += [(d.jacobian * other).sum((-2, -1)) for other in (d.jacobian.mT, d.jacobian)]
        parts.append(torch.stack(rows))
    return dict(zip((*FORMS, "tr J J", "tr J J^T"), torch.cat(parts, 1).unflatten(1, (BINS, -1)), strict=True))


@metric("FP residual, {}", source=LAI, better="lower", headline="score_fpe_noised", where=WHERE, variants=FORMS)
def residual(subject: Subject, variant: str, where: str) -> tuple[Estimate, Curve]:
    """Rms of the dimensionless Fokker-Planck residual sigma^2 eps / sigma_dot, {}."""
    return with_curve(Estimate.of_root_mean, _field(subject, where)[variant])


@metric("median FP residual, {}", source=LAI, better="lower", where=WHERE, variants=FORMS)
def residual_median(subject: Subject, variant: str, where: str) -> Estimate:
    """Median of the dimensionless Fokker-Planck residual sigma^2 eps / sigma_dot, {}."""
    return Estimate.of_median(_field(subject, where)[variant].sqrt())


@metric("curl", source="Chao et al. 2023", better="lower", where=WHERE)
def curl(subject: Subject, where: str) -> Estimate:
    """1/2 E[tr J J^T - tr J J] / E[tr J J^T], J the Jacobian of sigma s_theta."""
    if subject.problem.shape == (1, 1):
        raise NoValue("a field of one component has none")
    square, product = _field(subject, where)["tr J J^T"], _field(subject, where)["tr J J"]
    return Estimate.of_ratio((square - product) / 2, square)


@metric("circulation", better="closer to 0")
def circulation(subject: Subject) -> list[Estimate]:
    """Mean over lines and t of sigma times the integral of s_theta's component once around the torus along it; 0 for
    the gradient of a log-density."""
    estimates, generator = [], subject.generator("circulation")
    atoms, dimensions = subject.problem.shape
    for k in range(atoms * dimensions):
        t = stratified_times(subject.effort.per_bin["circulation"], generator)
        x = torch.rand(len(t), 1, atoms * dimensions, generator=generator).repeat(1, LOOP_POINTS, 1)
        x[:, :, k] = (x[:, :, k] + torch.arange(LOOP_POINTS) / LOOP_POINTS) % 1  # from a uniform base point
        field = subject.network(x.view(-1, atoms, dimensions), t.repeat_interleave(LOOP_POINTS))
        integrals = field.flatten(1)[:, k].view(len(t), LOOP_POINTS).double().mean(1)
        estimates.append(Estimate.of_mean(integrals.view(BINS, -1)))
    return estimates


@shared
def _gaps(subject: Subject, where: str) -> tuple[Tensor, Tensor]:
    """Return the gaps along two independent trajectories, (trajectory, ...), of the network and of the exact score.
    Both take the same points and random numbers, so what noise and finite steps do to both cancels."""
    points = points_at(where, subject.truth, subject.effort.per_bin["gap"], subject.generator("gap points"))
    rule = Consistency.model_validate(dict(weight=0, points=where, time_steps=TIME_STEPS, number_of_steps=STEPS))
    networks, purpose = (subject.network, subject.truth), f"gap {where}"
    gaps = [rule.gaps(n, *points, truth=subject.truth, generator=subject.generator(purpose)) for n in networks]
    return torch.stack(gaps[0]), torch.stack(gaps[1])


@metric("consistency gap", source="Daras et al. 2023", better="closer to 0", where=WHERE)
def consistency_gap(subject: Subject, where: str) -> tuple[Estimate, Curve]:
    """Mean over components of sigma^2 |E[s_theta(x_t', t') | x_t] - s_theta(x_t, t)|^2 over 5 of 100 reverse steps,
    from t >= 0.05 down, estimated from two independent trajectories, so chance can make it negative; steps are finite,
    so the exact score's is not 0."""
    return with_curve(Estimate.of_mean, _gaps(subject, where)[0].prod(0).mean((-2, -1)).view(BINS, -1))


@metric("consistency error", better="closer to 0", headline="noised", where=WHERE)
def consistency_error(subject: Subject, where: str) -> tuple[Estimate, Curve]:
    """Mean over components of |gap_theta - gap|^2: the square of the difference between the network's consistency gap
    and that of the exact score on trajectories with the same random numbers; chance can make it negative."""
    ours, exact = _gaps(subject, where)
    return with_curve(Estimate.of_mean, (ours - exact).prod(0).mean((-2, -1)).view(BINS, -1))
