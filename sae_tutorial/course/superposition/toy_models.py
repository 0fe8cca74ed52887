"""Toy models of superposition: what a bottleneck does with more features than it has dimensions.

One model: N sparse features x are squeezed into M < N hidden dimensions and read back,

    h = W_in x   (or ReLU of it),    x' = ReLU(W_out h + b),    loss = Σ_i importance_i (target_i − x'_i)²

`train_toy_models` trains many such models ("instances") at once as batched matrices: a sweep over sparsity, a grid,
or restarts of the same setting. The gradients are four lines of algebra, written out and tested against autograd.

Letters of shapes: I instances, B batch, N features, M hidden dimensions.
Source: Elhage et al. 2022, Toy Models of Superposition, transformer-circuits.pub/2022/toy_model.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import torch
from jaxtyping import Float
from torch import Tensor

from sae_tutorial.activations.arguments import as_number, as_whole

# (probability (I, N), batch size, generator) -> features (I, B, N)
Sampler = Callable[[Tensor, int, torch.Generator], Tensor]
# (W (I, M, N), b (I, 1, N), x (I, B, N), importance (I, 1, N), optimizer of W and b): one step of training
Step = Callable[[Tensor, Tensor, Tensor, Tensor, torch.optim.Optimizer], object]


@dataclass(frozen=True)
class ToyModels:
    """Many trained instances of the toy model. Tied instances share their weights: decoder = encoderᵀ.

    `loss` is measured after training on fresh samples: the importance-weighted squared error, averaged over features.
    """

    encoder: Float[Tensor, "instances hidden features"]
    decoder: Float[Tensor, "instances features hidden"]
    bias: Float[Tensor, "instances features"]
    loss: Float[Tensor, " instances"]
    relu_hidden: bool = False

    def hidden(self, x: Float[Tensor, "instances batch features"]) -> Float[Tensor, "instances batch hidden"]:
        """What the bottleneck holds."""
        h = x @ self.encoder.mT
        return h.relu() if self.relu_hidden else h

    def __call__(self, x: Float[Tensor, "instances batch features"]) -> Float[Tensor, "instances batch features"]:
        """The reconstruction x'."""
        return (self.hidden(x) @ self.decoder.mT + self.bias[:, None]).relu()

    def gram(self) -> Float[Tensor, "instances features features"]:
        """`decoder @ encoder`, the famous WᵀW: entry (i, j) is what output i hears of feature j."""
        return self.decoder @ self.encoder


def independent_features(
    probability: Float[Tensor, "instances features"], batch_size: int, generator: torch.Generator
) -> Float[Tensor, "instances batch features"]:
    """Each feature is on with its probability, and then uniform in [0, 1].

    One uniform u per (sample, feature) decides both: (u − (1 − p)) / p is positive with probability p, and uniform
    when it is. All instances share u, so that they differ by their sparsity and not by their luck.
    """
    u_BN = torch.rand(batch_size, probability.shape[1], generator=generator, device=generator.device)
    p_I1N = probability[:, None]
    return torch.sub(u_BN, 1 - p_I1N).relu_().div_(p_I1N)  # in place: at these sizes memory is the cost


def signed_features(
    probability: Float[Tensor, "instances features"], batch_size: int, generator: torch.Generator
) -> Float[Tensor, "instances batch features"]:
    """Each feature is on with its probability, and then uniform in [−1, 1]."""
    x = independent_features(probability, batch_size, generator)
    return torch.where(x > 0, 2 * x - 1, x)


def correlated_pairs(
    probability: Float[Tensor, "instances features"], batch_size: int, generator: torch.Generator
) -> Float[Tensor, "instances batch features"]:
    """Features 0 and 1, 2 and 3, ... are on together or off together; their values in [0, 1] are independent."""
    coin_BN, value_BN = _pair_coins(probability, batch_size, generator)
    return value_BN * (coin_BN < probability[:, None])


def anticorrelated_pairs(
    probability: Float[Tensor, "instances features"], batch_size: int, generator: torch.Generator
) -> Float[Tensor, "instances batch features"]:
    """Features 0 and 1, 2 and 3, ... are never on together. Each is on with its probability, which is at most 1/2."""
    if probability.max() > 0.5:
        raise ValueError(
            f"probability reaches {probability.max():.3g}; two features that never meet can each be on at most half "
            "of the time: pass probabilities up to 0.5"
        )
    coin_BN, value_BN = _pair_coins(probability, batch_size, generator)
    coin_BN[:, 1::2] = 1 - coin_BN[:, 1::2]  # u and 1 − u are never both below p ≤ 1/2
    return value_BN * (coin_BN < probability[:, None])


def _pair_coins(probability: Tensor, batch_size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    n_features = probability.shape[1]
    if n_features % 2:
        raise ValueError(f"probability has {n_features} features; pairs need an even number of them")
    coins = torch.rand(batch_size, n_features // 2, generator=generator, device=generator.device)
    values = torch.rand(batch_size, n_features, generator=generator, device=generator.device)
    return coins.repeat_interleave(2, dim=1), values


def train_toy_models(
    probability: Float[Tensor, "instances features"],
    importance: Float[Tensor, "instances features"],
    n_hidden: int,
    *,
    steps: int = 2500,
    batch_size: int = 256,
    learning_rate: float = 1e-2,
    restarts: int = 1,
    sampler: Sampler = independent_features,
    target: Callable[[Tensor], Tensor] | None = None,
    relu_hidden: bool = False,
    tied: bool = True,
    step: Step | None = None,
    seed: int = 0,
) -> ToyModels:
    """Train one toy model per row of `probability` and `importance`, all at the same time, on the device they are on.

    Args:
        probability: how often each feature is on, in (0, 1]. Sparsity S is 1 − probability.
        importance: the weight of each feature in the loss, not negative. A single row serves all instances.
        n_hidden: M, the dimensions of the bottleneck.
        restarts: train so many copies of each row from other starting points and keep the one with the lowest loss.
        sampler: draws the features: `independent_features`, `signed_features`, `correlated_pairs`, ...
        target: what to reconstruct, a function of x; x itself by default, `torch.abs` to compute the absolute value.
        relu_hidden: put a ReLU on the hidden layer, which makes its neurons a privileged basis.
        tied: W_out = W_inᵀ.
        step: takes the place of `training_step`, for tied models with a linear hidden layer.

    Our choices, not the source's: Adam with a cosine from `learning_rate` to zero, 2,500 steps of 256 samples, and a
    bias that starts at the features' mean, so that no output starts dead. benchmarks/superposition.py holds the loss
    that they reach against 10,000 steps of 1,024 samples at a constant 1e-3.

    Raises ValueError that names the argument for shapes that do not fit, values out of range, and a learning rate at
    which every copy of some row diverges; a copy that diverges alone is never kept.
    """
    plain = tied and not relu_hidden and target is None
    if step is not None and not plain:
        raise ValueError(
            "step trains tied models with a linear hidden layer that reconstruct x; leave it out for others"
        )
    probability, importance = _checked(probability, importance, n_hidden, steps, batch_size, restarts, learning_rate)
    p_IN = probability.repeat_interleave(restarts, dim=0)
    n_instances, n_features = p_IN.shape
    weight_I1N = importance.repeat_interleave(restarts, dim=0)[:, None]
    generator = torch.Generator(p_IN.device).manual_seed(seed)

    def start(*size: int) -> Tensor:
        weights = torch.randn(*size, generator=generator, device=generator.device)
        return weights * math.sqrt(2 / (n_features + n_hidden))

    encoder = start(n_instances, n_hidden, n_features)
    decoder = encoder.mT if tied else start(n_instances, n_features, n_hidden)
    bias = p_IN / 2
    bias_I1N = bias[:, None]  # the same memory, in a shape that is added to (I, B, N)
    if step is not None:
        encoder.requires_grad_()
        bias_I1N.requires_grad_()
    own = [encoder, bias_I1N]
    parameters = own if tied else [*own, decoder]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate, fused=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    target = target or (lambda x: x)

    for _ in range(steps):
        x = sampler(p_IN, batch_size, generator)
        if plain:
            (step or training_step)(encoder, bias_I1N, x, weight_I1N, optimizer)
        else:
            gradients = _gradients(x, target(x), encoder, decoder, bias, weight_I1N, relu_hidden)
            encoder.grad, decoder_grad, bias_I1N.grad = gradients[0], gradients[1], gradients[2][:, None]
            if tied:
                encoder.grad += decoder_grad.mT
            else:
                decoder.grad = decoder_grad
            optimizer.step()
        schedule.step()

    encoder, bias = encoder.detach(), bias_I1N.detach()[:, 0]
    decoder = encoder.mT if tied else decoder
    models = ToyModels(encoder, decoder, bias, p_IN.new_zeros(n_instances), relu_hidden)
    loss = _held_out_loss(models, p_IN, weight_I1N, sampler, target, seed)
    best = loss.nan_to_num(nan=torch.inf).view(-1, restarts).argmin(dim=1)
    best += restarts * torch.arange(len(best), device=best.device)
    diverged = (~loss[best].isfinite()).nonzero().flatten().tolist()
    if diverged:
        raise ValueError(
            f"learning_rate={learning_rate}: training diverged, for rows {diverged} of probability from every starting "
            f"point. Take a smaller learning_rate, such as {min(learning_rate / 10, 1e-2):.0e}."
        )
    return ToyModels(encoder[best], decoder[best], bias[best], loss[best], relu_hidden)


def training_step(W: Tensor, b: Tensor, x: Tensor, importance: Tensor, optimizer: torch.optim.Optimizer) -> None:
    """One step of tied models (W (I, M, N), b (I, 1, N)) on features x (I, B, N), with gradients worked out by hand.

    What the learner writes in its place may use autograd and return the loss; `train_toy_models` looks at neither.
    """
    with torch.no_grad():
        W.grad, decoder_grad, b_grad = _gradients(x, x, W, W.mT, b[:, 0], importance, False)
        W.grad += decoder_grad.mT
        b.grad = b_grad[:, None]
    optimizer.step()


def loss_of_shape(
    W: Float[Tensor, "hidden features"],
    probability: Float[Tensor, "instances features"],
    importance: Float[Tensor, "#instances features"],
    *,
    steps: int = 300,
    batch_size: int = 4096,
    seed: int = 0,
) -> Float[Tensor, " instances"]:
    """What given directions cost at each probability, with the best bias: W stays as it is and only b is trained.

    The importance-weighted squared error, summed over features.
    """
    x = independent_features(probability, batch_size, torch.Generator().manual_seed(seed))
    before_bias, p_I1N = x @ (W.mT @ W), probability[:, None]
    units = torch.full_like(p_I1N, 0.5).requires_grad_()  # the bias in units of p: no step leaps below a ReLU's zero
    optimizer = torch.optim.Adam([units], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    for _ in range(steps):
        error = (before_bias + p_I1N * units).relu() - x
        loss = (importance[:, None] * error.square()).sum(dim=-1).mean(dim=-1)
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        schedule.step()
    return loss.detach()


def _gradients(
    x: Tensor, target: Tensor, encoder: Tensor, decoder: Tensor, bias: Tensor, weight_I1N: Tensor, relu_hidden: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the loss (summed over features, averaged over the batch) for encoder, decoder and bias.

    Backpropagation by hand. Autograd gives the same numbers (tested) and takes longer: it keeps every
    intermediate (I, B, N) tensor, and here memory traffic is most of the time.
    """
    h_IBM = x @ encoder.mT
    if relu_hidden:
        h_IBM = h_IBM.relu_()
    y_IBN = torch.baddbmm(bias[:, None], h_IBM, decoder.mT).relu_()
    error_IBN = (y_IBN - target).mul_(weight_I1N * (2 / x.shape[1])).mul_(y_IBN.sign_())  # sign of a ReLU: its slope
    h_error_IBM = error_IBN @ decoder
    if relu_hidden:
        h_error_IBM *= h_IBM > 0
    return h_error_IBM.mT @ x, error_IBN.mT @ h_IBM, error_IBN.sum(dim=1)


def _held_out_loss(
    models: ToyModels, p_IN: Tensor, weight_I1N: Tensor, sampler: Sampler, target: Callable, seed: int
) -> Float[Tensor, " instances"]:
    """Mean over features of the weighted squared error, on 16 × 1,024 samples that training has not seen."""
    generator = torch.Generator(p_IN.device).manual_seed(seed + 1_000_003)
    total, batches = p_IN.new_zeros(p_IN.shape[0]), 16
    for _ in range(batches):
        x = sampler(p_IN, 1024, generator)
        total += ((models(x) - target(x)).square_() * weight_I1N).mean(dim=(1, 2)).detach()
    return total / batches


def _checked(
    probability: Tensor,
    importance: Tensor,
    n_hidden: int,
    steps: int,
    batch_size: int,
    restarts: int,
    learning_rate: float,
) -> tuple[Tensor, Tensor]:
    for name, value in (("probability", probability), ("importance", importance)):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(value).__name__}; convert it: torch.as_tensor({name})")
        if value.ndim != 2:
            raise ValueError(
                f"{name} has shape {tuple(value.shape)}; it must be (instances, features): "
                "use value[None] for one instance"
            )
    if importance.shape != probability.shape:
        if importance.shape != (1, probability.shape[1]):
            raise ValueError(
                f"importance has shape {tuple(importance.shape)}, probability {tuple(probability.shape)}; "
                "they must agree, or importance must have a single row"
            )
        importance = importance.expand_as(probability)
    if not ((probability > 0) & (probability <= 1)).all():
        raise ValueError(
            f"probability spans [{probability.min():.3g}, {probability.max():.3g}]; it must lie in (0, 1]: "
            "a feature that is never on cannot be learned"
        )
    if not ((importance >= 0) & importance.isfinite()).all():
        spans = f"[{importance.min():.3g}, {importance.max():.3g}]"
        raise ValueError(f"importance spans {spans}; it must be finite numbers, none of them negative")
    for name, number in (("n_hidden", n_hidden), ("steps", steps), ("batch_size", batch_size), ("restarts", restarts)):
        as_whole(name, number, least=1)
    if not 0 < as_number("learning_rate", learning_rate) < math.inf:
        raise ValueError(f"learning_rate must be a finite number, greater than 0, got {learning_rate}")
    return probability.detach().float(), importance.detach().float()


# Reading the geometry off the weights. W holds one feature per column: (..., hidden, features).


def feature_norms(W: Float[Tensor, "*instances hidden features"]) -> Float[Tensor, "*instances features"]:
    """‖W_i‖: near 1 for a feature that is represented, near 0 for one that is dropped."""
    return W.norm(dim=-2)


def interference(W: Float[Tensor, "*instances hidden features"]) -> Float[Tensor, "*instances features"]:
    """Σ_{j≠i} (Ŵ_i · W_j)²: how much of the other features is heard along feature i; 0 if all are orthogonal."""
    return _heard_along(W) - feature_norms(W) ** 2


def feature_dimensionality(W: Float[Tensor, "*instances hidden features"]) -> Float[Tensor, "*instances features"]:
    """‖W_i‖² / Σ_j (Ŵ_i · W_j)², the share of a dimension that feature i has to itself; 0 for a dropped feature.

    1 is a dimension of its own, 1/2 an antipodal pair. D_i in the source: Elhage et al. 2022, the section on geometry.
    """
    norms = feature_norms(W)
    return torch.where(norms > 1e-4, norms**2 / _heard_along(W).clamp_min(1e-12), 0.0)


def dimensions_per_feature(W: Float[Tensor, "*instances hidden features"]) -> Float[Tensor, "*instances"]:
    """M / ‖W‖²_F: hidden dimensions over the number of features learned, for ‖W‖²_F counts those. D* in the source."""
    return W.shape[-2] / W.square().sum(dim=(-2, -1))


def _heard_along(W: Tensor) -> Tensor:
    """Σ_j (Ŵ_i · W_j)², feature i itself included."""
    directions = W / feature_norms(W)[..., None, :].clamp_min(1e-12)
    return (directions.mT @ W).square().sum(dim=-1)


def groups_of_features(W: Float[Tensor, "hidden features"], *, least: float) -> list[list[int]]:
    """Features that overlap, directly or by way of others: a cosine above `least`, of either sign, connects two.

    In a model that is built of separate shapes, each group is one of them.
    """
    if not W.shape[1]:
        return []
    directions = W / feature_norms(W).clamp_min(1e-12)
    reached = (directions.T @ directions).abs() > least
    reached.fill_diagonal_(True)
    for _ in range(len(reached).bit_length()):  # each round doubles the length of the ways
        reached = (reached.float() @ reached.float()) > 0
    first = reached.int().argmax(dim=1)  # its lowest member names a group
    return [(first == name).nonzero().flatten().tolist() for name in first.unique().tolist()]


# What each feature of a perfectly regular shape gets: hidden dimensions / features.
SHAPES = {
    "digon": Fraction(1, 2),
    "triangle": Fraction(2, 3),
    "tetrahedron": Fraction(3, 4),
    "pentagon": Fraction(2, 5),
    "hexagon": Fraction(1, 3),
    "square antiprism": Fraction(3, 8),
}


def shape(name: str) -> Float[Tensor, "hidden features"]:
    """Unit vectors to the corners of a regular shape, one per column: the arrangements that toy models like to find.

    The square antiprism is the isotropic one (corners at heights ±1/√3), whose eight features share three dimensions
    evenly. Raises ValueError for a name that is not in SHAPES.
    """
    corners = {"digon": 2, "triangle": 3, "pentagon": 5, "hexagon": 6}
    if name == "digon":
        return torch.tensor([[1.0, -1.0]])
    if name in corners:
        turn = 2 * math.pi * torch.arange(corners[name]) / corners[name]
        return torch.stack([turn.cos(), turn.sin()])
    if name == "tetrahedron":
        return torch.tensor([[1.0, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]) / math.sqrt(3)
    if name == "square antiprism":
        turn = 2 * math.pi * torch.arange(8) / 8  # even corners above, odd corners below: two squares, 45° apart
        height = torch.tensor([1.0, -1.0]).repeat(4) / math.sqrt(3)
        return torch.stack([turn.cos() * math.sqrt(2 / 3), turn.sin() * math.sqrt(2 / 3), height])
    raise ValueError(f"name is {name!r}; the shapes are {', '.join(SHAPES)}")


def distance_from_shape(W: Float[Tensor, "hidden features"], name: str) -> float:
    """How far features are from a regular shape: the largest difference between the sorted cosines of the two.

    The shape may lie in any subspace, its corners in any order. Raises ValueError for another number of features.
    """
    corners = shape(name)
    if W.shape[1] != corners.shape[1]:
        raise ValueError(f"W has {W.shape[1]} features, a {name} has {corners.shape[1]}; compare groups of that size")
    ours, theirs = (unit.T @ unit for unit in (W / feature_norms(W).clamp_min(1e-12), corners))
    return float((ours.flatten().sort().values - theirs.flatten().sort().values).abs().max())
