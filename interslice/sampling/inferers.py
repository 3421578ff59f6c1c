"""The sampler: diffusion steps on all slices of a volume, tied together by data and noise.

For t = t_0 > t_1 > ... > t_{n-1}, with s the next one (clean after the last):

    1. denoise         x0 = prior(x_t)                       slices across this step's axis
    2. data fidelity   x0 = data_consistency(x0, y)          the whole volume
    3. re-noise        x_s = sqrt(ab_s) x0 + sqrt(1 - ab_s - sigma^2) eps + sigma NOISE

NOISE is white in the slices that the *next* step's network sees, so it lies along the next step's slice axis.
Volumes are (X, Y, Z). With a closed-form data step at most four arrays of the volume's size are alive at once, whatever
the number of steps; two more for the mean and the spread of several draws, one more where noise is kept from step to
step (eta < 1), and one for a start that is not the operator's own. Conjugate gradients keep four of their own. Where
they lie, and what the device then holds, is said in volumes.py.
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import cycle, islice

import torch
from monai.data import MetaTensor
from tqdm import tqdm

from interslice.files.findings import Findings
from interslice.files.memory import Parts, array_bytes, largest, with_more
from interslice.files.switch import is_on
from interslice.files.values import callable_or_none, choice, number, whole_number
from interslice.noise.counter import Key, Purpose
from interslice.physics.linear_operator import LinearOperator
from interslice.physics.measurement import operator_of, reconstructed
from interslice.prior.diffusion import SIGMA_RULES, check_time_steps, predict_eps, time_steps
from interslice.prior.slices import check_finite, device_of
from interslice.sampling.reconstruction import Reconstruction, linear_reconstruction
from interslice.sampling.state import Keeper, State
from interslice.sampling.step import Step
from interslice.sampling.subject import Boxes, SubjectBoxes
from interslice.sampling.time_noise import TIME_NOISE, seed_of
from interslice.sampling.volume_inferer import VolumeInferer
from interslice.sampling.volume_noise import VolumeNoise
from interslice.sampling.volumes import Storage, Volumes
from interslice.usage import UsageError

SOLVERS = ("daps", "ddnm", "ddnm_plus", "dds", "diffpir", "dps", "mbir", "planes", "red_diff", "unconditional")
"""Those that have an overlay, configs/solver_*.json."""


class DiffusionInverseInferer(VolumeInferer):
    """Samples volumes from a 2-D diffusion prior, given a measurement and a noise field.

    Args:
        prior: denoises volumes (interslice.prior.SlicePrior).
        data_consistency: step 2 (interslice.sampling.data_consistency). One that has `fit(y, operator)` gives that of a
            measurement (interslice.sampling.noise_aware).
        noise_field: the random draws (interslice.noise.field).
        num_steps: network passes over the volume; ignored if `timesteps` is given.
        start_fraction: where in the schedule to begin: 1 is pure noise; below 1 the linear reconstruction,
            noised to that level, is the start.
        eta: share of fresh noise in each step, from 0 (deterministic after the start) to 1.
        sigma_rule: "fixed_share" or "ddim"; see interslice.prior.diffusion.
        slice_axis: axis across which the network's slices lie, 0, 1 or 2; "auto" for the operator's first choice;
            "alternate" for its choices in turn, so that the steps couple the volume; each draw, or antithetic pair,
            begins with the next one, so that their mean favours none; or a list of axes, taken in turn.
        num_draws: samples to draw; the result is their mean, with their standard deviation as the map "std".
        antithetic: draws come in pairs, the second with the opposite of all noise of the first and the same axes: each
            is a sample as before, but what noise does to a denoiser to first order cancels in their mean (Hammersley
            and Morton, "A new Monte Carlo technique: antithetic variates", 1956).
        seed: key of all draws.
        time_noise: of the volumes of a series (interslice.files.series), "same": one noise for all, which cancels in
            their differences to first order; "own": one each (docs/how_to/carried.md).
        timesteps: explicit descending grid, instead of num_steps and start_fraction.
        start: (y, operator) -> x, what a warm start begins from (see interslice.physics.baselines); the operator's
            linear reconstruction by default.
        finish: a data-consistency step for the mean of the draws (interslice.sampling.data_consistency), or None.
        eps_after_data: which noise is kept from x_t where not all is drawn anew: what the network found (False; DDIM),
            or what the data leave of it, (x_t - sqrt(ab_t) x0_hat) / sqrt(1 - ab_t) (True; DiffPIR).
        observer: sees every step (interslice.sampling.Trajectory), or None: begin(affine) is called once with the
            affine (4, 4) of the volume, then observer(draw, step, t, slice_axis, x_t, x0_hat).
        progress: show a bar with the time left.
        keeper: is offered the state after every step, and may know one to go on from (interslice.files.unfinished), or
            None. `keeper`, like `observer`, changes nothing of the result.
        storage: where the volumes lie (interslice.sampling.volumes.Storage); None for where the measurement does.
        subject: where the network has work to do, by a `start` that is given (interslice.sampling.subject), or None for
            everywhere. Data steps that take the network's gradient see all of the volume.
    """

    SETTINGS = (
        "seed", "num_steps", "start_fraction", "eta", "sigma_rule", "slice_axis", "num_draws", "eps_after_data",
        "antithetic", "noise_field", "data_consistency", "start", "finish", "subject", "time_noise",
    )  # fmt: skip

    def __init__(self, prior, data_consistency, noise_field, num_steps: int = 10,
                 start_fraction: float = 0.2, eta: float = 1.0, sigma_rule: str = "fixed_share",
                 slice_axis: int | str | Sequence[int] = "alternate", num_draws: int = 2, antithetic: bool = True,
                 seed: int = 0, timesteps: Sequence[int] | None = None, start=None, finish=None,
                 eps_after_data: bool = False, observer=None, progress: bool = True,
                 keeper: Keeper | None = None, subject: SubjectBoxes | None = None,
                 storage: Storage | None = None, time_noise: str = "same") -> None:  # fmt: skip
        super().__init__()
        choice("sigma_rule", sigma_rule, SIGMA_RULES)
        number("eta", eta, 0, 1)
        given, slice_axis = slice_axis, tuple(slice_axis) if isinstance(slice_axis, (list, tuple)) else slice_axis
        if not (slice_axis in ("auto", "alternate") or axes_in(slice_axis)):
            raise UsageError(f'slice_axis must be 0, 1, 2, a list of them, "auto" or "alternate", got {given!r}')
        if isinstance(noise_field, str):
            raise UsageError(
                f"noise_field must be a noise field, got {noise_field!r}: choose one by name with --noise {noise_field}"
            )
        if not callable(getattr(noise_field, "fit", None)):
            raise UsageError(f"noise_field must be a noise field, got {noise_field!r}: choose one with --noise slerp")
        if not callable(prior) or not hasattr(prior, "alpha_bars"):
            raise UsageError(f"prior must be a prior, such as interslice.prior.SlicePrior, got {prior!r}")
        if not callable(data_consistency):
            raise UsageError(
                f"data_consistency must be a data step of interslice.sampling, got {data_consistency!r}: "
                f"choose a solver by its overlay, {overlay_of(data_consistency)}"
            )
        turning = slice_axis == "alternate" or (isinstance(slice_axis, tuple) and len(set(slice_axis)) > 1)
        keeps = sigma_rule != "fixed_share" or eta < 1
        if turning and keeps and getattr(noise_field, "correlated", True):
            warnings.warn(
                f"slice_axis {slice_axis!r} turns the planes while part of the noise is kept ({sigma_rule}, eta "
                f"{eta:g}): what slices shared along the last axis is not white in the next slices. Results suffer. "
                "Set slice_axis to auto, or sigma_rule fixed_share with eta 1, or take independent noise",
                stacklevel=2,
            )
        if observer is not None and not hasattr(observer, "begin"):
            raise UsageError(f"observer must be nothing or a interslice.sampling.Trajectory, got {observer!r}")
        self.prior = prior
        self.data_consistency, self.noise_field = data_consistency, noise_field
        self.alpha_bars = prior.alpha_bars
        num_train = len(self.alpha_bars)
        self.from_noise = timesteps is None and start_fraction == 1
        self.timesteps = (
            time_steps(num_train, num_steps, start_fraction)
            if timesteps is None
            else check_time_steps(timesteps, num_train)
        )
        self.num_steps, self.start_fraction = len(self.timesteps), start_fraction
        self.eta, self.sigma_rule = eta, sigma_rule
        self.slice_axis, self.num_draws = slice_axis, whole_number("num_draws", num_draws, 1)
        self.seed, self.time_noise = whole_number("seed", seed), choice("time_noise", time_noise, TIME_NOISE)
        self.start = callable_or_none("start", start, "'@baselines#smoothest'")
        self.finish = callable_or_none("finish", finish, "@data_consistency")
        self.antithetic = is_on(antithetic, "antithetic")
        self.eps_after_data = is_on(eps_after_data, "eps_after_data")
        self.observer, self.progress = observer, is_on(progress, "progress")
        self.subject, self.storage = subject, storage
        self.kept_by(keeper)

    def kept_by(self, keeper: Keeper | None) -> None:
        """Offer the states of reconstructions to `keeper` from now on; raises UsageError if an observer forbids it."""
        if keeper is not None and not all(hasattr(keeper, name) for name in ("resume", "begin", "offer")):
            raise UsageError(f"keeper must be nothing or a interslice.files.unfinished.Unfinished, got {keeper!r}")
        if keeper is not None and keeper.resume and self.observer is not None:
            raise UsageError(
                "resume goes on where a run stopped, and an observer (configs/trajectory.json) has to see every step: "
                "leave out one of them"
            )
        self.keeper = keeper

    def with_steps(self, num_steps: int, start_fraction: float, num_draws: int) -> DiffusionInverseInferer:
        """A copy that takes other steps, and draws."""
        other = copy.copy(self)
        other.timesteps = time_steps(len(self.alpha_bars), num_steps, start_fraction)
        other.num_steps, other.start_fraction = num_steps, start_fraction
        other.from_noise, other.num_draws = start_fraction == 1, whole_number("num_draws", num_draws, 1)
        return other

    @property
    def settings(self) -> dict:
        """What a record of the run should say of it, by the names of the arguments."""
        return {name: getattr(self, name) for name in self.SETTINGS}

    def reconstruct(self, measurement: MetaTensor, network: torch.nn.Module) -> MetaTensor:
        y, operator = measurement.as_tensor()[0].float(), operator_of(measurement)
        affine = operator.domain_affine(measurement.affine)
        seed = self.seed if self.time_noise == "same" else seed_of(self.seed, measurement)
        run = self.begin(y, operator, network, operator.voxel_sizes(measurement.affine), seed)
        if self.observer is not None:
            self.observer.begin(affine)
        total = self.num_draws * self.num_steps
        run.state = self._kept(run, total)
        resumed_after = run.state.done
        shown = {"disable": not self.progress, "leave": None}  # not kept below the bar of a series
        with tqdm(total=total, initial=resumed_after, desc="sampling", unit="step", **shown) as bar:
            run.advance = partial(self._advance, run.state, bar)
            for draw in range(run.state.draw, self.num_draws):
                run.state.add(self.sample(run, draw))
                run.advance()
        mean, deviations = run.state.take()
        if self.finish is not None:
            mean = self.finish(mean, run.y, operator, Step(ab_t=0.5))
        misfit = run.volumes.misfit(mean, run.y, operator)
        found = Findings(
            str(operator), str(run.noise.field), self.num_draws, misfit, resumed_after=resumed_after,
            noise_level=getattr(run.data_consistency, "noise_level", None), antithetic=self.antithetic,
            volumes_on=run.volumes.place, num_steps=self.num_steps, start_fraction=self.start_fraction,
        )  # fmt: skip
        if deviations is not None:
            found = found.with_map("std", deviations.div_(self._spread_of_one()).sqrt_()[None])
        return reconstructed(mean, measurement, found)

    def begin(self, y: torch.Tensor, operator: LinearOperator, network, spacing: Sequence[float] = (1.0, 1.0, 1.0),
              seed: int | None = None) -> Reconstruction:  # fmt: skip
        """A reconstruction of the volume behind y, with voxels of `spacing` (mm): its start, and a field that fits.

        `seed`: key of its draws; the inferer's if None.
        """
        volumes = self._volumes(y, operator, network, spacing)
        y = y.cpu() if volumes.in_parts else y
        start = None
        if self.start is not None and not self.from_noise:
            start = volumes.work(self.start, operator, y, alone=getattr(self.start, "by_parts", False))
        seed = self.seed if seed is None else seed
        noise = VolumeNoise(self.noise_field.fit(y, operator, spacing), spacing, seed, device=volumes.device)
        fit = getattr(self.data_consistency, "fit", None)
        step = self.data_consistency if fit is None else fit(y, operator)
        boxes = None
        if self.subject is not None and start is not None and not getattr(step, "with_gradient", False):
            on_cpu = device_of(network, y).type == "cpu"
            boxes = self.subject.of(start, sorted(set(self._choices(operator))), on_cpu)
            if getattr(self.prior, "across_ranks", False):  # a voxel that rounds otherwise would part them
                boxes = Boxes.of_all(boxes, start)
        return Reconstruction(y, operator, network, noise, step, volumes, start, boxes)

    def _volumes(self, y: torch.Tensor, operator: LinearOperator, network, spacing: Sequence[float]) -> Volumes:
        """Where the volumes of a reconstruction lie."""
        device = device_of(network, y)
        if self.storage is None:
            return Volumes("device" if device == y.device else "host", device)
        found = self.storage.of(device, sum(self.working_bytes(y, operator, spacing, network).values()))
        # What is around this inferer has chosen between device and host.
        return replace(found, place="host") if found.place == "device" and device != y.device else found

    @torch.no_grad()
    def sample(self, run: Reconstruction, draw: int = 0) -> torch.Tensor:
        """One sample (X, Y, Z) of the volume. `draw` tells samples of one seed apart."""
        path, second = divmod(draw, 2) if self.antithetic else (draw, 0)
        steps, ab, axes, sigma_of = self.timesteps, self.alpha_bars, self._axes(run, path), SIGMA_RULES[self.sigma_rule]
        state, noise = run.state, run.noise.opposite() if second else run.noise
        first, own = (k * (len(ab) + 1) for k in (path, draw))  # of its steps, in the keys of draws: no two share one
        x = self._noisy_start(run, noise, axes[0], first) if state.x is None else state.x
        first_now, room = state.step, run.room()
        for i, t in enumerate(steps[state.step :], state.step):
            number, last = first + 1 + i, i == len(steps) - 1
            ab_s, next_axis = (1.0, axes[i]) if last else (ab[steps[i + 1]], axes[i + 1])
            sigma = sigma_of(ab[t], ab_s, self.eta)
            keeps = not last and sigma**2 < 1 - ab_s - 1e-12
            denoised = self.prior if run.boxes is None else partial(run.boxes.denoised, self.prior)
            x0 = denoised(run.network, x, t, axes[i], *room)
            if last or i == first_now:  # on a GPU, to look at a number is to wait for it
                check_finite(x0, t)
            eps = predict_eps(x, x0, ab[t], *run.room()) if keeps and not self.eps_after_data else None
            step = Step(
                ab[t], ab_s, sigma, axes[i], Key(noise.seed, own + 1 + i, Purpose.MEASUREMENT), x, memory=state.memory,
                pull_back=partial(self.prior.pull_back, run.network, x, t, axes[i]),
                noise=partial(noise.volume, x, next_axis, ab_s, number, Purpose.DATA_STEP),
            )  # fmt: skip
            x0 = run.agreeing(x0, step)
            if self.observer is not None:
                self.observer(draw, i, t, axes[i], x, x0)
            if last:
                state.step, state.x, state.memory = 0, None, {}
                return x0
            if keeps and self.eps_after_data:
                eps = predict_eps(x, x0, ab[t], out=x)
            x = noise.renoise(x, x0, eps, ab_s, sigma, next_axis, number, step.let_in)
            x0 = eps = None  # or they would live on beside the next x0
            state.step, state.x = i + 1, x
            run.advance()

    def _kept(self, run: Reconstruction, total: int) -> State:
        """The state to go on from, of an interrupted run that did the same; else that of the beginning."""
        if self.keeper is None:
            return State()
        of_result = {k: v for k, v in vars(self).items() if k not in ("observer", "progress", "keeper", "storage")}
        scan = (run.y, run.operator, run.noise.spacing, run.noise.seed)
        others = (of_result, run.network, run.volumes.device.type)
        state = State(**self.keeper.begin(scan, others, total, run.y.device) or {})
        if run.volumes.place == "disk":
            for name in ("x", "mean", "squares"):
                if (kept := getattr(state, name)) is not None:
                    setattr(state, name, run.volumes.empty(kept.shape).copy_(kept))
        if state.batch_sizes:
            self.prior.batch_sizes.update(state.batch_sizes)
        return state

    def _advance(self, state: State, bar: tqdm) -> None:
        """A step is done."""
        state.done += 1
        bar.update()
        if self.keeper is not None:
            state.batch_sizes = getattr(self.prior, "batch_sizes", {})
            self.keeper.offer(vars(state))

    def working_bytes(
        self, y: torch.Tensor, operator: LinearOperator, spacing: Sequence[float], network: Callable
    ) -> Parts:
        """See `VolumeInferer`."""
        volume, step, draws = array_bytes(operator.domain_shape), self.data_consistency, 2 * (self.num_draws > 1)
        axes = self._choices(operator)
        gradient = getattr(step, "with_gradient", False)
        activations = self.prior.working_bytes(network, operator.domain_shape, axes, gradient)
        held = {"draws": draws * volume}
        if self.start is not None and not self.from_noise:
            kept = getattr(self.start, "kept_bytes", lambda _: 0.0)(operator)
            held["start"] = volume + kept
        noise = volume * (self.eta < 1 or self.sigma_rule != "fixed_share")
        loop = with_more(held, volumes=2 * volume + noise)
        return largest(
            {"start": working_bytes(self.start, operator, operator.starting_bytes())},
            with_more(loop, network=activations + step_bytes(step, operator) * gradient),
            loop | {"data step": max(step_bytes(step, operator), 2 * volume)},
            with_more(held, volumes=volume) | {"finish": step_bytes(self.finish, operator)},
        )

    def coupled_bytes(self, operator: LinearOperator) -> float:
        """Bytes of the work that takes whole volumes, wherever these lie (interslice.sampling.volumes)."""
        sizes = [step_bytes(self.finish, operator)]
        start = self.start or linear_reconstruction
        if not self.from_noise and not self._alone(start, operator):
            sizes.append(working_bytes(self.start, operator, operator.starting_bytes()))
        if not self._alone(self.data_consistency, operator):
            sizes.append(step_bytes(self.data_consistency, operator))
        return max(sizes)

    @staticmethod
    def _alone(work: Callable, operator: LinearOperator) -> bool:
        """Whether parts of a volume are worked on each by itself."""
        return bool(operator.separable_axes) and getattr(work, "by_parts", False)

    def _spread_of_one(self) -> float:
        """What the sum of squared deviations of the draws from their mean is, in variances of one draw.

        A draw and its opposite deviate as one does from the truth, to first order: of n draws in pairs it is n, not
        n - 1. Beyond first order it is less, down to n - 1, and the deviation is so much too small.
        """
        n = self.num_draws
        return n - (n % 2) / n if self.antithetic else n - 1

    def _axes(self, run: Reconstruction, path: int) -> list[int]:
        """The slice axis of every step."""
        return list(islice(cycle(self._choices(run.operator)), path, path + len(self.timesteps)))

    def _choices(self, operator: LinearOperator) -> tuple[int, ...]:
        """The axes that steps take in turn."""
        named = {"auto": operator.slice_axes[:1], "alternate": operator.slice_axes}
        return self.slice_axis if isinstance(self.slice_axis, tuple) else named.get(self.slice_axis, (self.slice_axis,))

    def _noisy_start(self, run: Reconstruction, noise: VolumeNoise, axis: int, step: int) -> torch.Tensor:
        """x_t at the first timestep."""
        ab = self.alpha_bars[self.timesteps[0]]
        x = run.volumes.empty(run.operator.domain_shape).to(run.y.dtype)
        if self.from_noise:
            return noise.renoise(x, x.zero_(), None, 0.0, 1.0, axis, step)
        start = run.start
        if start is None:
            start = run.volumes.work(linear_reconstruction, run.operator, run.y, alone=True)
        return noise.renoise(x, start, None, ab, math.sqrt(1 - ab), axis, step)


def overlay_of(name: object) -> str:
    """The config of the solver that a data step was called by, or one of them."""
    word = name.lower().replace("+", "_plus").replace("-", "_") if isinstance(name, str) else ""
    return f"configs/solver_{word}.json" if word in SOLVERS else "such as configs/solver_dds.json"


def step_bytes(step: Callable | None, operator: LinearOperator) -> float:
    """Bytes that a data step takes; of one that does not say it, those of conjugate gradients."""
    return 0.0 if step is None else working_bytes(step, operator, operator.descent_bytes())


def working_bytes(part: Callable | None, operator: LinearOperator, otherwise: float) -> float:
    """What a part says that it takes, or what those take that do not say it."""
    return part.working_bytes(operator) if hasattr(part, "working_bytes") else otherwise


def axes_in(slice_axis) -> bool:
    """Whether this is an axis, or a list of axes."""
    if isinstance(slice_axis, tuple):
        return len(slice_axis) > 0 and all(axes_in(a) for a in slice_axis)
    return slice_axis in (0, 1, 2) and not isinstance(slice_axis, bool)
