"""A first look at a learned score, from Python: `python -m examples.first_look`, in the clone's folder. Nothing has to
be trained. Change any line."""

import matplotlib.pyplot as plt
import torch

from utils.evaluation.ode_metrics import ode_log_density
from utils.evaluation.sample_metrics import share_of_strays
from utils.physics.noise_schedule import time_grid
from utils.runs import load_score_network
from utils.score.samplers import predictor_corrector

EXPERIMENT, T = "no_regularizer", 0.8

learned = load_score_network(EXPERIMENT, run_name="published")  # the weights that come with the code
exact = load_score_network("analytical")
problem, schedule = exact.problem, exact.schedule
generator = torch.Generator().manual_seed(0)

# The field: x is (batch, atom, dimension) in [0, 1), t is (batch,) in [0, 1], a score is shaped like x.
grid = (torch.arange(20) + 0.5) / 20
x = torch.cartesian_prod(grid, grid)[:, :, None]  # both positions of two atoms on a line
t = torch.full((len(x),), T)
figure, panes = plt.subplots(1, 2, figsize=(10, 5), subplot_kw={"aspect": "equal"})
for axes, network, title in zip(panes, (learned, exact), (EXPERIMENT, "exact"), strict=True):
    with torch.no_grad():
        axes.quiver(*x[..., 0].T, *network.score(x, t)[..., 0].T)
    axes.set(title=f"{title}, t = {T}", xlabel="atom 1", ylabel="atom 2")
figure.savefig("first_look.png")
print("the fields at one time: first_look.png")

# The path KL: the integral over t of sigma sigma_dot E|s_learned - s|^2. A network called returns N = sigma s.
t = torch.rand(20_000, generator=generator)
x = problem.sample_noised(schedule.sigma(t), generator)
with torch.no_grad():
    squares = (learned(x, t) - exact(x, t)).square().sum((1, 2))
path_kl = (schedule.sigma_dot(t) / schedule.sigma(t) * squares).mean()
print(f"path KL: {path_kl:.4f} nats")

# Samples of the reverse diffusion, from uniform noise.
start = torch.rand(2_000, *problem.shape, generator=generator)
samples = predictor_corrector(learned, start, time_grid(100), generator=generator)
strays = share_of_strays(problem, samples, schedule.sigma(torch.tensor(0.0)))
positions = [f"({first:.3f}, {second:.3f})" for first, second in samples[:3, :, 0]]
print(f"samples: {', '.join(positions)}, ..., {100 * strays.value:.2f} % of them strays")

# The density of a point under the samples of the probability-flow ODE, and the exact one.
point = torch.tensor([[[0.26], [0.75]]], dtype=torch.float64)
of_learned = ode_log_density(learned.double(), exact, point).item()
of_exact = problem.log_density(point, schedule.sigma(torch.zeros(1))).item()
print(f"log-density of {point.flatten().tolist()}: {of_learned:.3f} by the learned ODE, {of_exact:.3f} exactly, nats")
