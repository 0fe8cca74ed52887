"""One training step of everybody, each as its own library does it. Runs inside that library's environment.

Everybody starts from the same weights (decoder rows of unit norm, the encoder a multiple of the decoder's transpose,
biases) and sees the same batches, centred and scaled already. Nobody is dead, so AuxK rests. The loss is the squared
error everywhere, up to a constant. `check` looks at a batch with the rule of training, and updates nothing.

A library's imports stand where it is used, as the others are not installed beside it.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

FOREVER = 100_000  # steps that trainers believe to be at
STEADY = 2_000  # the step at which measuring begins: behind warm-ups and one-time work
LR = 1e-4
FAIR = {"rule": "mutual_choice", "relative": True, "floor": 0.1}  # Mutual Choice by length, with a floor


def make(name: str, task: dict[str, Any]) -> Any:
    """`name` is "library rule", and for our own a precision."""
    library, rule, *more = name.split()
    return {"ours": Ours, "limit": Limit, "saelens": SAELens, "dictionary_learning": DictionaryLearning}.get(
        library, Sparsify
    )(rule, task, *more)


def fvu(x: Tensor, x_hat: Tensor) -> float:
    """About 0, with variance 1 per coordinate: batches come that way."""
    return float((x - x_hat).float().square().mean())


class Ours:
    """`Trainee.advance`, which is what `train` calls, and the normalisation that `train` does before."""

    warm_up = 2  # the second step of Feature Choice decides about ranks

    def __init__(self, rule: str, task: dict[str, Any], dtype: str):
        from sae_tutorial import SAEConfig, SparseAutoencoder
        from sae_tutorial.training.settings import TrainSettings
        from sae_tutorial.training.step import Trainee

        d_in, n_features, n_tokens, k = task["shape"]
        more = FAIR if rule == "fair" else {"rule": rule}
        sae = SparseAutoencoder(SAEConfig(d_in, n_features, k=k, **more))
        with torch.no_grad():
            for name in ("W_enc", "W_dec", "b_enc", "b_dec"):
                weight = task["weights"][name]
                getattr(sae, name).copy_(weight.T if name == "W_enc" else weight)
        # 1e9 tokens until a latent counts as dead
        settings = TrainSettings(FOREVER, n_tokens, lr=LR, encoder_dtype=dtype, dead_after=10**9)
        self.trainee = Trainee(sae.to(task["device"]), settings, variance=1.0)
        # Every tenth step of Feature Choice counts who would match in open competition: a turn has one of them.
        self.least = 10 if rule == "feature_choice" else 1

    def step(self, x: Tensor) -> None:
        if 2 <= self.trainee.step < STEADY:
            self.trainee.step = STEADY + 1
        u = self.trainee.sae.normalise(x)
        self.trainee.advance(u, u)

    @torch.no_grad()
    def check(self, x: Tensor) -> dict[str, float]:
        losses = self.trainee.budget_losses(x, x)
        return {"fvu": float(losses.fvu), "l0": float(losses.density.sum()), "loss": float(losses.loss)}


class Limit:
    """What no step can do without: the encoder's product, or fused Adam over all parameters."""

    def __init__(self, part: str, task: dict[str, Any], dtype: str):
        d_in, n_features, n_tokens, _ = task["shape"]
        weights, device, self.part = task["weights"], task["device"], part
        self.dtype = getattr(torch, dtype)
        if part == "product":
            self.W_DF, self.b_F = weights["W_enc"].T.to(self.dtype), weights["b_enc"].to(self.dtype)
            self.out_BF = torch.empty(n_tokens, n_features, dtype=self.dtype, device=device)
            self.rounded: dict[int, Tensor] = {}
        else:
            parameters = [torch.nn.Parameter(weight.clone()) for weight in weights.values()]
            for parameter in parameters:
                parameter.grad = torch.randn_like(parameter)
            self.adam = torch.optim.Adam(parameters, lr=1e-9, fused=True)

    def step(self, x: Tensor) -> None:
        if self.part == "adam":
            self.adam.step()
            return
        x = self.rounded.setdefault(x.data_ptr(), x.to(self.dtype))
        torch.addmm(self.b_F, x, self.W_DF, out=self.out_BF)

    def check(self, x: Tensor) -> dict[str, float]:
        return {}


class SAELens:
    """`SAETrainer.step`, the public seam of its training loop, with its defaults. On a GPU with its autocast."""

    def __init__(self, rule: str, task: dict[str, Any]):
        import sae_lens
        from sae_lens.config import SAETrainerConfig
        from sae_lens.saes.sae import TrainStepInput
        from sae_lens.training.sae_trainer import SAETrainer

        d_in, n_features, n_tokens, k = task["shape"]
        kind = {"TopK": "TopKTraining", "BatchTopK": "BatchTopKTraining"}[rule]
        config = getattr(sae_lens, f"{kind}SAEConfig")(d_in=d_in, d_sae=n_features, k=k, device=task["device"])
        self.sae = getattr(sae_lens, f"{kind}SAE")(config)
        with torch.no_grad():
            for name in ("W_enc", "W_dec", "b_enc", "b_dec"):
                weight = task["weights"][name]
                getattr(self.sae, name).copy_(weight.T if name == "W_enc" else weight)
        settings = SAETrainerConfig(
            total_training_samples=FOREVER * n_tokens,
            train_batch_size_samples=n_tokens,
            lr=LR,
            lr_end=LR,
            device=task["device"],
            autocast=task["device"] == "cuda",
        )
        self.trainer, self.input = SAETrainer(settings, self.sae, data_provider=iter(())), TrainStepInput

    def step(self, x: Tensor) -> None:
        self.trainer.step(x)
        self.trainer.n_training_steps += 1

    @torch.no_grad()
    def check(self, x: Tensor) -> dict[str, float]:
        given = {"dead_neuron_mask": None, "coefficients": {}, "n_training_steps": 0, "is_logging_step": False}
        out = self.sae.training_forward_pass(self.input(sae_in=x, **given))
        n_active = float((out.feature_acts.to_dense() != 0).sum())
        return {"fvu": fvu(x, out.sae_out), "l0": n_active / len(x), "loss": float(out.losses["mse_loss"])}


class DictionaryLearning:
    """`trainer.update`, which its `trainSAE` calls, with its defaults; on a GPU under bfloat16 autocast, as there."""

    def __init__(self, rule: str, task: dict[str, Any]):
        from dictionary_learning.trainers import batch_top_k, top_k

        d_in, n_features, _, k = task["shape"]
        kind = {"TopK": top_k.TopKTrainer, "BatchTopK": batch_top_k.BatchTopKTrainer}[rule]
        about = {"layer": 0, "lm_name": "none", "device": task["device"], "lr": LR}
        self.trainer = kind(steps=FOREVER, activation_dim=d_in, dict_size=n_features, k=k, **about)
        self.count, self.cuda = STEADY, task["device"] == "cuda"
        with torch.no_grad():
            self.trainer.ae.encoder.weight.copy_(task["weights"]["W_enc"])
            self.trainer.ae.encoder.bias.copy_(task["weights"]["b_enc"])
            self.trainer.ae.decoder.weight.copy_(task["weights"]["W_dec"].T)
            self.trainer.ae.b_dec.copy_(task["weights"]["b_dec"])

    def step(self, x: Tensor) -> None:
        with torch.autocast("cuda", dtype=torch.bfloat16) if self.cuda else nullcontext():
            self.trainer.update(self.count, x.to(torch.bfloat16) if self.cuda else x)
        self.count += 1

    @torch.no_grad()
    def check(self, x: Tensor) -> dict[str, float]:
        out = self.trainer.loss(x, step=0, logging=True)
        n_active = float((out.f != 0).sum())
        return {"fvu": fvu(x, out.x_hat), "l0": n_active / len(x), "loss": out.losses["l2_loss"]}


class Sparsify:
    """The step inside `Trainer.fit`, line by line (the loop itself is woven into a language model's forward pass), with
    optimizer="adam" or its default, "signum". Its kernels are Triton's on a GPU, eager on a CPU. It never clips, and
    by default it has no AuxK."""

    def __init__(self, rule: str, task: dict[str, Any], optimizer: str = "adam"):
        import os

        if task["device"] == "cpu":
            os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # where Triton is installed, it would be called on a CPU, too
        import sparsify

        d_in, n_features, _, k = task["shape"]
        config = sparsify.SparseCoderConfig(num_latents=n_features, k=k)
        self.coder = sparsify.SparseCoder(d_in, config, device=task["device"], dtype=torch.float32)
        with torch.no_grad():
            self.coder.encoder.weight.copy_(task["weights"]["W_enc"])
            self.coder.encoder.bias.copy_(task["weights"]["b_enc"])
            self.coder.W_dec.copy_(task["weights"]["W_dec"])
            self.coder.b_dec.copy_(task["weights"]["b_dec"])
        groups = [{"params": self.coder.parameters(), "lr": LR}]
        if optimizer == "adam":
            self.optimizer = torch.optim.Adam(groups)
        else:
            from schedulefree import ScheduleFreeWrapper
            from sparsify.sign_sgd import SignSGD

            self.optimizer = ScheduleFreeWrapper(SignSGD(groups), momentum=0.95)
            self.optimizer.train()
        self.silent = torch.zeros(n_features, dtype=torch.long, device=task["device"])
        self.fired = torch.zeros(n_features, dtype=torch.bool, device=task["device"])

    def step(self, x: Tensor) -> None:
        self.coder.set_decoder_norm_to_unit_norm()
        out = self.coder(x=x, y=x, dead_mask=None, total_variance=(x - x.mean(0)).pow(2).sum())
        self.fired[out.latent_indices.flatten()] = True
        float(out.fvu.detach())  # goes into a running average
        (out.fvu + 0.0 * out.auxk_loss + out.multi_topk_fvu / 8).backward()
        self.coder.remove_gradient_parallel_to_decoder_directions()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.silent += len(x)
        self.silent[self.fired] = 0
        self.fired.zero_()

    @torch.no_grad()
    def check(self, x: Tensor) -> dict[str, float]:
        out = self.coder(x)
        n_active = float((out.latent_acts != 0).sum())
        return {"fvu": fvu(x, out.sae_out), "l0": n_active / len(x), "loss": float(out.fvu)}
