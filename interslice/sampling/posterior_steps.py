"""Data steps of solvers that need more than the clean estimate: the gradient through the network, noise, or a memory.

    gradient    x0 - g / sqrt(ab_s) J^T A^T (A x0 - y) / |A|^2       DPS (Chung et al., 2023), J = d x0 / d x_t
    noisy       x0 + F (y - A x0), F as close to A^+ as the noise    DDNM+ (Wang et al., 2023)
    null space  in y allows; the fresh noise is lowered by what F lets in
    variational one Adam step on |A m - y|^2 / 2 + l |m - x0|^2 / 2  RED-diff (Mardani et al., 2024)
    sampled     x0_hat ~ N(y; A x0, s^2) N(x0_hat; x0, r^2)          DAPS (Zhang et al., 2025)
    slice TV    argmin |A z - y|^2 / 2 + w |D z|_1 by ADMM,          DiffusionMBIR (Chung et al., 2023)
                D the difference of neighbouring slices

Each is a callable (x0, y, operator, step) -> x0_hat like those of data_consistency.py. Weights and step sizes
count relative to |A|^2, so that they carry over between operators.
"""

from __future__ import annotations

import math

import torch

from interslice.files.memory import array_bytes
from interslice.files.values import number, whole_number
from interslice.noise.counter import keyed_normal
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.linear_solvers import conjugate_gradient
from interslice.physics.variation import differences, differences_adjoint
from interslice.sampling.step import Step


class PosteriorGradient:
    """Moves x_s down the gradient of the misfit, taken through the network.

    DPS (Chung et al., "Diffusion Posterior Sampling for General Noisy Inverse Problems", ICLR 2023, algorithm 1):
    x_s <- x_s - zeta grad_{x_t} |y - A x0(x_t)|^2. Here the same change is made to x0, before x_s follows from it.
    The authors divide zeta by the misfit's norm, which ties the size of the step to the number of voxels; we divide by
    |A|^2, so that `scale` means the same for every operator and size. Each step costs about three more network passes
    (forward and backward), and the memory of one batch's activations.

    Args:
        scale: g, about 1; above 2 the steps overshoot.
    """

    with_gradient = True
    """The network's activations are kept for its gradient."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = number("scale", scale, above=0)

    def __call__(self, x0: torch.Tensor, y: torch.Tensor, operator: LinearOperator, step: Step) -> torch.Tensor:
        gradient = step.pull_back(operator.adjoint(operator.forward(x0) - y))
        return x0.sub_(gradient, alpha=self.scale / (math.sqrt(step.ab_s) * operator.norm**2))

    def working_bytes(self, operator: LinearOperator) -> float:
        """Less what the network takes, which `with_gradient` tells of."""
        return 2 * (array_bytes(operator.domain_shape) + array_bytes(operator.range_shape)) + operator.working_bytes()


class NoisyNullSpace:
    """The null-space step for noisy data: takes from y only what its noise allows at the level of x_s.

    DDNM+ (Wang et al., ICLR 2023, section 3.3). With A = U S V^T they scale each singular direction of A^+ so that the
    noise it lets in, sqrt(ab_s) noise_std / s, stays below the fresh noise sigma. That needs the decomposition of A.
    Here F = (A^T A + rho)^-1 A^T with rho = ab_s noise_std^2 / (4 sigma^2) does so in every direction without it, since
    s / (s^2 + rho) <= 1 / (2 sqrt(rho)) = sigma / (sqrt(ab_s) noise_std). The fresh noise is lowered by the mean
    variance of F n, estimated from one draw of n, and not direction by direction.

    Args:
        noise_std: standard deviation of the noise of y, in y's units.
        iterations, tolerance: of conjugate gradients, for operators without a closed form.
        floor: least rho, in units of |A|^2: in the last step, where no noise is to come, and for conditioning.
    """

    def __init__(self, noise_std: float, iterations: int = 10, tolerance: float = 1e-5, floor: float = 1e-6) -> None:
        self.noise_std, self.floor = number("noise_std", noise_std, 0), number("floor", floor, above=0)
        self.iterations, self.tolerance = whole_number("iterations", iterations, 1), number("tolerance", tolerance, 0)

    def __call__(self, x0: torch.Tensor, y: torch.Tensor, operator: LinearOperator, step: Step) -> torch.Tensor:
        # In the last step nothing hides the noise of y: x0's own error takes the place of sigma.
        allowed = step.sigma**2 / step.ab_s if step.ab_s < 1 else step.noise_ratio
        if self.noise_std and not allowed:  # no fresh noise: nothing can hide the noise of y
            return x0
        rho = self.floor * operator.norm**2
        if self.noise_std:
            rho = max(rho, self.noise_std**2 / (4 * allowed))
        if step.ab_s < 1 and self.noise_std:
            noise = keyed_normal(tuple(y.shape), step.key, 0, y.device).to(y)
            let_in = operator.prox(torch.zeros_like(x0), noise, rho, self.iterations, self.tolerance)
            step.let_in = self.noise_std * float(let_in.square().mean().sqrt())
        return operator.prox(x0, y, rho, self.iterations, self.tolerance)  # x0 + F (y - A x0)

    def working_bytes(self, operator: LinearOperator) -> float:
        return 2 * (array_bytes(operator.domain_shape) + array_bytes(operator.range_shape)) + operator.solving_bytes()


class Variational:
    """A gradient step of a volume m that is kept from step to step; the denoised x0 pulls at it.

    RED-diff (Mardani et al., "A Variational Perspective on Solving Inverse Problems with Diffusion Models", ICLR 2024,
    algorithm 1): Adam on |A m - y|^2 / 2 + w_t <eps_theta(x_t) - eps, m> with x_t = sqrt(ab_t) m + sqrt(1 - ab_t) eps.
    With the authors' weight w_t = lambda sqrt((1 - ab_t) / ab_t) the second gradient is lambda (m - x0), whatever the
    noise. Use it with eta = 1 and the fixed share, which noises m anew in each step. m begins as the first x0 (theirs
    as A^+ y), and the misfit counts relative to |A|^2.

    Args:
        weight: lambda.
        learning_rate: of Adam, in the prior's units per step.
        momenta: Adam's beta_1 and beta_2; the authors' are 0.9 and 0.99.
    """

    def __init__(self, weight: float = 0.25, learning_rate: float = 0.1,
                 momenta: tuple[float, float] = (0.9, 0.99)) -> None:  # fmt: skip
        self.weight = number("weight", weight, above=0)
        self.learning_rate = number("learning_rate", learning_rate, above=0)
        self.momenta = tuple(number("momenta", m, 0, below=1) for m in momenta)

    def __call__(self, x0: torch.Tensor, y: torch.Tensor, operator: LinearOperator, step: Step) -> torch.Tensor:
        kept = step.memory
        if not kept:
            kept |= {"m": x0.clone(), "first": torch.zeros_like(x0), "second": torch.zeros_like(x0), "count": 0}
        m, (beta1, beta2) = kept["m"], self.momenta
        gradient = operator.adjoint(operator.forward(m) - y).div_(operator.norm**2).add_(m - x0, alpha=self.weight)
        kept["count"] += 1
        kept["first"].lerp_(gradient, 1 - beta1)
        kept["second"].lerp_(gradient.square_(), 1 - beta2)
        rate = self.learning_rate / (1 - beta1 ** kept["count"])
        spread = (kept["second"] / (1 - beta2 ** kept["count"])).sqrt_().add_(1e-8)
        return m.addcdiv_(kept["first"], spread, value=-rate).clone()

    def working_bytes(self, operator: LinearOperator) -> float:
        """Three volumes that are kept, the gradient and the spread."""
        return 6 * array_bytes(operator.domain_shape) + 2 * array_bytes(operator.range_shape) + operator.working_bytes()


class GaussianPosterior:
    """Draws x0_hat from the posterior of a Gaussian around x0 and the Gaussian noise of y.

    DAPS (Zhang et al., "Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing", CVPR 2025,
    algorithm 1): x0_hat ~ N(x0_hat; x0, r_t^2 I) N(y; A x0_hat, noise_std^2 I), then noised anew (eta = 1, fixed
    share). The authors run Langevin dynamics, for any A. For linear A that law is Gaussian, and is drawn exactly by
    solving the perturbed problem (Papandreou and Yuille, NIPS 2010)

        argmin_z |A z - y - noise_std n_1|^2 / noise_std^2 + |z - x0 - r_t n_2|^2 / r_t^2,    n_1, n_2 ~ N(0, I),

    with n_2 from the noise field of the slices. In the last step nothing is drawn: the result is the mean.

    Args:
        noise_std: standard deviation of the noise of y, in y's units; for next to no noise, a small share of |y|.
        spread: r_t in units of sqrt((1 - ab_t) / ab_t), the authors' sigma_t.
        iterations, tolerance: of conjugate gradients, for operators without a closed form.
    """

    def __init__(self, noise_std: float, spread: float = 1.0, iterations: int = 10, tolerance: float = 1e-5) -> None:
        self.noise_std, self.spread = number("noise_std", noise_std, above=0), number("spread", spread, above=0)
        self.iterations, self.tolerance = whole_number("iterations", iterations, 1), number("tolerance", tolerance, 0)

    def __call__(self, x0: torch.Tensor, y: torch.Tensor, operator: LinearOperator, step: Step) -> torch.Tensor:
        r = self.spread * math.sqrt(step.noise_ratio)
        if step.ab_s < 1:
            y = y + self.noise_std * keyed_normal(tuple(y.shape), step.key, 0, y.device).to(y)
            x0 = x0.add_(step.noise(), alpha=r)
        rho = (self.noise_std / r) ** 2
        return operator.prox(x0, y, rho, self.iterations, self.tolerance)

    def working_bytes(self, operator: LinearOperator) -> float:
        return array_bytes(operator.domain_shape) + 2 * array_bytes(operator.range_shape) + operator.solving_bytes()


class SliceTotalVariation:
    """Least squares with total variation between neighbouring slices, by ADMM from x0.

    DiffusionMBIR (Chung et al., "Solving 3D Inverse Problems using Pre-trained 2D Diffusion Models", CVPR 2023,
    algorithm 2): argmin_z |A z - y|^2 / (2 |A|^2) + w |D z|_1, where D takes differences along the slice axis alone;
    split as q = D z, with the scaled dual u:

        z <- argmin |A z - y|^2 / (2 |A|^2) + r/2 |D z - q + u|^2        conjugate gradients from x0
        q <- shrink(D z + u, w / r),    u <- u + D z - q

    q and u are kept from step to step ("variable sharing"), so that one iteration a step is enough. x0 enters as the
    start of the conjugate gradients alone: few iterations leave what the data do not see to the prior. The last slice
    has no neighbour: the authors' code takes differences in a ring, which ties it to the first. D follows the slices
    that the network sees; if the axis alternates, each axis has its q and u.

    Args:
        weight: w, in units of the volume's values.
        penalty: r.
        iterations: of ADMM in each step.
        cg_iterations, tolerance: of the conjugate gradients in each of these.
    """

    def __init__(self, weight: float, penalty: float = 1.0, iterations: int = 1, cg_iterations: int = 5,
                 tolerance: float = 1e-5) -> None:  # fmt: skip
        self.weight, self.penalty = number("weight", weight, above=0), number("penalty", penalty, above=0)
        self.iterations = whole_number("iterations", iterations, 1)
        self.cg_iterations = whole_number("cg_iterations", cg_iterations, 1)
        self.tolerance = number("tolerance", tolerance, 0)

    def __call__(self, x0: torch.Tensor, y: torch.Tensor, operator: LinearOperator, step: Step) -> torch.Tensor:
        axis, r, scale = (step.slice_axis - 3,), self.penalty, operator.norm**2
        q, u = step.memory.get(axis) or (torch.zeros(1, *x0.shape).to(x0), torch.zeros(1, *x0.shape).to(x0))

        def normal(x: torch.Tensor) -> torch.Tensor:
            return operator.normal(x).div_(scale).add_(differences_adjoint(differences(x, axis), axis), alpha=r)

        data, z = operator.adjoint(y) / scale, x0
        for _ in range(self.iterations):
            b = torch.add(data, differences_adjoint(q - u, axis), alpha=r)
            z = conjugate_gradient(normal, b, z, self.cg_iterations, self.tolerance)
            slopes = differences(z, axis).add_(u)
            q = torch.nn.functional.softshrink(slopes, self.weight / r)
            u = slopes.sub_(q)
        step.memory[axis] = (q, u)
        return z

    def working_bytes(self, operator: LinearOperator) -> float:
        """q and u of each axis; the conjugate gradients; A^T y, and differences at work."""
        volume = array_bytes(operator.domain_shape)
        return (2 * len(operator.slice_axes) + 4) * volume + operator.descent_bytes()
