"""What every number is called, what it means, in which unit, who proposed it, and which direction is better."""

import re
from typing import Literal, NamedTuple

Better = Literal["lower", "higher", "closer to 1", "closer to 0"]
TOY = "this project"
SONG = "Song et al. 2021"


class Metric(NamedTuple):
    """The description of one number; `better` is None for what is neither good nor bad, such as a control."""

    label: str
    unit: str  # empty for a dimensionless number; a fraction is shown in percent
    definition: str
    source: str
    better: Better | None


LAWS = {
    "noised": "points of the noised law, t uniform on [0,1]",
    "uniform": "points uniform on the torus, t uniform on [0,1]",
}
FORMS = {
    "score_fpe": "eps = d_t s - sigma sigma_dot grad(div s + |s|^2)",
    "advective": "eps = d_t s - sigma sigma_dot (2 (s.grad) s + lap s)",
}
RESIDUAL = "of the dimensionless Fokker-Planck residual sigma^2 eps / sigma_dot,"


def _under(law: str) -> dict[str, Metric]:
    where, error = LAWS[law], "of sigma (s_theta - s)"
    entries = {
        f"score_error_{law}": Metric(
            f"score error, {law}", "", f"rms over components {error}; {where}", TOY, "lower"
        ),
        f"score_error_relative_{law}": Metric(
            f"relative score error, {law}", "", f"rms {error} over the rms of sigma s; {where}", TOY, "lower"
        ),
        f"score_error_median_{law}": Metric(
            f"median score error, {law}", "", f"median over points of the rms over components {error}; {where}",
            TOY, "lower",
        ),
        f"curl_{law}": Metric(
            f"curl, {law}", "",
            f"1/2 E[tr J J^T - tr J J] / E[tr J J^T], J the Jacobian of sigma s_theta; {where}",
            "Chao et al. 2023", "lower",
        ),
        f"consistency_gap_{law}": Metric(
            f"consistency gap, {law}", "",
            "mean over components of sigma^2 |E[s_theta(x_t', t') | x_t] - s_theta(x_t, t)|^2 over 5 of 100 reverse "
            f"steps, from two independent trajectories: unbiased, so perhaps negative; {where}",
            "Daras et al. 2023", "closer to 0",
        ),
        f"consistency_excess_{law}": Metric(
            f"excess gap, {law}", "",
            "the consistency gap less that of the exact score on trajectories with the same random numbers, which "
            f"removes the noise and the bias of the finite steps that both share; {where}",
            TOY, "lower",
        ),
    }  # fmt: skip
    for place in ("on", "off"):
        entries[f"score_error_{place}_ridges_{law}"] = Metric(
            f"score error {place} ridges, {law}",
            "",
            f"rms over components {error} where the best assignment outweighs the second by "
            f"{'less' if place == 'on' else 'more'} than 2 nats; {where}",
            TOY,
            "lower",
        )
    for form, formula in FORMS.items():
        name = "FP residual" if form == "score_fpe" else f"{form} FP residual"
        entries[f"residual_{form}_{law}"] = Metric(
            f"{name}, {law}", "", f"rms {RESIDUAL} {formula}; {where}", "Lai et al. 2022", "lower"
        )
        entries[f"residual_{form}_median_{law}"] = Metric(
            f"median {name}, {law}", "", f"median {RESIDUAL} {formula}; {where}", "Lai et al. 2022", "lower"
        )
    return entries


METRICS: dict[str, Metric] = {
    "path_kl": Metric(
        "path KL", "nats",
        "integral over t of sigma sigma_dot E|s_theta - s|^2 under the noised law, summed over components",
        SONG, "lower",
    ),
    "excess_loss": Metric(
        "excess loss", "",
        "score-matching loss on fresh noised points less that of the exact score; mean over components", TOY, "lower",
    ),
    "path_kl_from_loss": Metric(
        "path KL from the loss", "nats",
        "the excess weighted by sigma_dot / sigma and summed over components: the path KL again", TOY, "lower",
    ),
    "path_kl_disagreement": Metric(
        "disagreement of both path KL", "nats",
        "path KL from the loss less path KL, at the same points: 0 within its error", TOY, "closer to 0",
    ),
    "stray_fraction": Metric(
        "strays", "fraction",
        "share of samples farther than 5 sigma_0 from their nearest mode (periodic distance), "
        "sigma_0 = sqrt(sigma_d^2 + sigma_min^2)", TOY, "lower",
    ),
    "width_ratio": Metric(
        "width", "sigma_0",
        "width of the modes' cores, strays left out; the sampler itself raises it: compare with analytical",
        TOY, "closer to 1",
    ),
    "mode_occupancy": Metric(
        "occupancy", "",
        "share of the cores' samples in the first mode times the number of modes", TOY, "closer to 1",
    ),
    "mode_occupancy_p_value": Metric(
        "occupancy p-value", "", "p-value of equal shares in all modes (chi-squared test)", TOY, None
    ),
    "radial_ks": Metric(
        "radial law", "",
        "Kolmogorov-Smirnov distance of r / sigma_0 from the chi law, r the distance to the nearest mode; "
        "the interval is that of Dvoretzky, Kiefer, Wolfowitz", TOY, "lower",
    ),
    "radial_p_value": Metric("radial p-value", "", "p-value of that distance", TOY, None),
    "wasserstein_2": Metric(
        "W2", "relative coordinates",
        "periodic 2-Wasserstein distance of samples from exact draws, exact transport of blocks of 500, up to "
        "relabelling of the atoms where the law is symmetric; not 0 for two exact samples: see the control",
        TOY, "lower",
    ),
    "wasserstein_2_control": Metric(
        "W2, control", "relative coordinates", "the same between two sets of exact draws", TOY, None
    ),
    "law_drift": Metric(
        "drift", "nats", "E log p over the samples less E log p under the exact law p at the end of the sampler",
        "Daras et al. 2023", "closer to 0",
    ),
    "ode_kl": Metric(
        "ODE KL", "nats",
        "KL(p_0 | q_0), q_0 the law of the probability-flow ODE's samples from the exact law at t = 1", SONG, "lower",
    ),
    "ode_norm": Metric(
        "ODE norm", "",
        "mean of p_0 / q_0 over the ODE's samples, q_0 from the divergence along their paths: 1 within its error if "
        "that is the density they are drawn from",
        TOY, None,
    ),
    "ode_stray_fraction": Metric(
        "ODE strays", "fraction", "share of stray samples of the probability-flow ODE from the exact law at t = 1",
        TOY, "lower",
    ),
    "circulation": Metric(
        "circulation", "",
        "mean over lines and t of sigma times the integral of s_theta's component once around the torus along it; "
        "0 for the gradient of a log-density", TOY, "closer to 0",
    ),
    "memorisation": Metric(
        "distance from memory", "",
        "E|N_theta - N_e|^2 / (E|N_theta - N_e|^2 + E|N_theta - N|^2), N_e the exact normalised score of the noised "
        "training set, early times: 0 learned by heart, 1 the truth", TOY, "higher",
    ),
    "nearest_neighbour_ratio": Metric(
        "neighbours", "",
        "mean distance of samples (strays left out) to the training set over that of exact draws; below 1: copies",
        TOY, "closer to 1",
    ),
} | _under("noised") | _under("uniform")  # fmt: skip

HEADLINE = {  # name -> heading and factor of the printed table
    "path_kl": ("path KL", 1),
    "ode_kl": ("ODE KL", 1),
    "stray_fraction": ("strays, %", 100),
    "wasserstein_2": ("W2", 1),
    "residual_score_fpe_noised": ("FP residual", 1),
    "consistency_excess_noised": ("excess gap", 1),
}


def describe(name: str) -> Metric:
    """Return the description of a number; circulation_2 is the circulation along component 2."""
    if match := re.fullmatch(r"circulation_(\d+)", name):
        base = METRICS["circulation"]
        return base._replace(label=f"{base.label} {match[1]}", definition=f"component {match[1]}: {base.definition}")
    return METRICS[name]
