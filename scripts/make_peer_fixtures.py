"""SAEs written by the real SAELens, sparsify and dictionary_learning, as fixtures for our tests; and the way back.

    python scripts/make_peer_fixtures.py --cache FOLDER [--out tests/fixtures/peers] [--only saelens …]

Each library lives in an environment of its own below FOLDER (about 2 GB each, made once; sae-lens cannot be installed
beside our transformer-lens). It writes small SAEs in its own format, with inputs, codes and reconstructions beside
them in `example.safetensors`. Then SAELens opens folders that `save_sae` wrote, and how far its reconstructions are
from ours goes into `saelens_reads_ours.json`.

The script runs itself inside these environments (`--inside`), so nothing that must be installed is imported at the top.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peer_environments import PACKAGES, environment, run

D_IN, D_SAE, K, TOKENS = 8, 16, 4, 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="where the environments are, or will be")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "tests" / "fixtures" / "peers")
    parser.add_argument("--only", nargs="+", choices=PACKAGES, default=list(PACKAGES))
    parser.add_argument("--inside", choices=[*PACKAGES, "check"], help=argparse.SUPPRESS)
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.inside == "check":
        check_ours(args.ours, args.out)
    elif args.inside:
        WRITERS[args.inside](args.out / args.inside)
    elif args.cache is None:
        parser.error("--cache is needed: a folder for the environments")
    else:
        for name in args.only:
            python = environment(args.cache.resolve(), name)
            shutil.rmtree(args.out / name, ignore_errors=True)
            run(python, __file__, "--inside", name, "--out", args.out.resolve())
        if "saelens" in args.only:
            with tempfile.TemporaryDirectory() as folder:
                write_ours(Path(folder))
                python = environment(args.cache.resolve(), "saelens")
                run(python, __file__, "--inside", "check", "--ours", folder, "--out", args.out.resolve())


# ---------------------------------------------------------------------- inside an environment


def inputs(seed: int = 0) -> Any:
    """(TOKENS, D_IN), with a mean that is not 0."""
    import torch

    return 0.5 + torch.randn(TOKENS, D_IN, generator=torch.Generator().manual_seed(seed))


def shake(module: Any, seed: int = 1) -> None:
    """Random values for all parameters, decoder norms away from 1, thresholds positive: nothing can hide in a zero."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.3 + 0.1 * noise.abs() if name == "threshold" else 0.4 * noise)


def keep_example(folder: Path, **tensors: Any) -> None:
    from safetensors.torch import save_file

    tensors = {name: tensor.detach().to_dense().contiguous().clone() for name, tensor in tensors.items()}
    save_file(tensors, folder / "example.safetensors")


def keep_versions(out: Path, *packages: str) -> None:
    (out / "versions.json").write_text(json.dumps({name: version(name) for name in packages}, indent=2) + "\n")


def write_saelens(out: Path) -> None:
    import sae_lens

    sizes: dict[str, Any] = {"d_in": D_IN, "d_sae": D_SAE}
    plain: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "standard": (sae_lens.StandardSAE, sae_lens.StandardSAEConfig, {}),
        "standard_b_dec_not_subtracted": (
            sae_lens.StandardSAE,
            sae_lens.StandardSAEConfig,
            {"apply_b_dec_to_input": False},
        ),
        "topk": (sae_lens.TopKSAE, sae_lens.TopKSAEConfig, {"k": K}),
        "topk_rescaled": (
            sae_lens.TopKSAE,
            sae_lens.TopKSAEConfig,
            {"k": K, "rescale_acts_by_decoder_norm": True},
        ),
        "jumprelu": (sae_lens.JumpReLUSAE, sae_lens.JumpReLUSAEConfig, {}),
        "gated": (sae_lens.GatedSAE, sae_lens.GatedSAEConfig, {}),
        "transcoder": (sae_lens.Transcoder, sae_lens.TranscoderConfig, {"d_out": 5, "apply_b_dec_to_input": False}),
        "skip_transcoder": (
            sae_lens.SkipTranscoder,
            sae_lens.SkipTranscoderConfig,
            {"d_out": 5, "apply_b_dec_to_input": False},
        ),
        "jumprelu_transcoder": (
            sae_lens.JumpReLUTranscoder,
            sae_lens.JumpReLUTranscoderConfig,
            {"d_out": 5, "apply_b_dec_to_input": False},
        ),
    }
    for name, (kind, config, more) in plain.items():
        sae = kind(config(**sizes, **more))
        shake(sae)
        sae.save_model(out / name)
        keep_example(out / name, x=inputs(), codes=sae.encode(inputs()), x_hat=sae(inputs()))

    budgets: dict[str, tuple[Any, Any, dict[str, Any]]] = {
        "batchtopk": (sae_lens.BatchTopKTrainingSAE, sae_lens.BatchTopKTrainingSAEConfig, {}),
        "matryoshka": (
            sae_lens.MatryoshkaBatchTopKTrainingSAE,
            sae_lens.MatryoshkaBatchTopKTrainingSAEConfig,
            {"matryoshka_widths": [4, D_SAE]},
        ),
    }
    for name, (kind, config, more) in budgets.items():
        training = kind(config(**sizes, k=K, **more))
        shake(training)
        training.topk_threshold.fill_(0.3)
        training.save_inference_model(out / name)
        sae = sae_lens.SAE.load_from_disk(out / name)
        keep_example(out / name, x=inputs(), codes=sae.encode(inputs()), x_hat=sae(inputs()))
    training.save_model(out / "in_the_middle_of_training")
    keep_versions(out, "sae-lens", "torch", "transformer-lens")


def write_sparsify(out: Path) -> None:
    import sparsify

    variants: dict[str, dict[str, Any]] = {
        "topk": {},
        "skip": {"skip_connection": True},
        "transcoder": {"transcode": True},
        "skip_transcoder": {"transcode": True, "skip_connection": True},
    }
    for name, more in variants.items():
        coder = sparsify.SparseCoder(D_IN, sparsify.SparseCoderConfig(num_latents=D_SAE, k=K, **more))
        shake(coder)
        coder.save_to_disk(out / name)
        top = coder.encode(inputs())
        codes = top.top_acts.new_zeros(TOKENS, D_SAE).scatter(1, top.top_indices.long(), top.top_acts)
        keep_example(out / name, x=inputs(), codes=codes, x_hat=coder(inputs()).sae_out)
    keep_versions(out, "eai-sparsify", "torch")


def write_dictionary_learning(out: Path) -> None:
    """With its own `trainSAE`, a few steps each, so that files and configs are those that users have."""
    import torch
    from dictionary_learning.dictionary import AutoEncoderNew
    from dictionary_learning.trainers import batch_top_k, gdm, jumprelu, matryoshka_batch_top_k, standard, top_k
    from dictionary_learning.training import trainSAE
    from dictionary_learning.utils import load_dictionary

    steps = 6
    common: dict[str, Any] = {"activation_dim": D_IN, "dict_size": D_SAE, "layer": 0, "lm_name": "none"}
    common |= {"steps": steps, "warmup_steps": 1, "seed": 0, "device": "cpu", "submodule_name": "resid"}
    budget = {"k": K, "threshold_start_step": 0}
    penalty = {"sparsity_warmup_steps": 1}
    groups = {"group_fractions": [0.25, 0.75]}
    variants: dict[str, tuple[Any, dict[str, Any]]] = {
        "standard": (standard.StandardTrainer, penalty),
        "standard_april": (standard.StandardTrainerAprilUpdate, penalty),
        "topk": (top_k.TopKTrainer, budget),
        "batchtopk": (batch_top_k.BatchTopKTrainer, budget),
        "batchtopk_threshold_unset": (batch_top_k.BatchTopKTrainer, {"k": K}),
        "matryoshka": (matryoshka_batch_top_k.MatryoshkaBatchTopKTrainer, budget | groups),
        "gated": (gdm.GatedSAETrainer, penalty),
        "jumprelu": (jumprelu.JumpReluTrainer, penalty | {"target_l0": K}),
    }
    for name, (trainer, more) in variants.items():
        config = {"trainer": trainer, **common, **more}
        with tempfile.TemporaryDirectory() as folder:
            data = (inputs(seed) for seed in range(steps + 1))
            trainSAE(data=data, trainer_configs=[config], steps=steps, save_dir=folder, device="cpu")
            shutil.copytree(Path(folder) / "trainer_0", out / name, ignore=shutil.ignore_patterns("checkpoints"))
    (out / "new").mkdir()  # no trainer makes it, but its loader knows it
    torch.save(AutoEncoderNew(D_IN, D_SAE).state_dict(), out / "new" / "ae.pt")
    (out / "new" / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoderNew"}}))
    for name in [*variants, "new"]:
        shake_state(out / name / "ae.pt")
        dictionary, _ = load_dictionary(str(out / name), device="cpu")
        keep_example(out / name, x=inputs(), codes=dictionary.encode(inputs()), x_hat=dictionary(inputs()))
    keep_versions(out, "dictionary-learning", "torch")


def shake_state(file: Path) -> None:
    """The same file with biases and thresholds away from zero, which a few steps leave them close to."""
    import torch

    state, generator = torch.load(file, weights_only=True), torch.Generator().manual_seed(1)
    for name, tensor in state.items():
        if tensor.is_floating_point() and tensor.dim() == 1:
            noise = 0.2 * torch.randn(tensor.shape, generator=generator)
            state[name] = tensor + (noise.abs() if name == "threshold" else noise)
    torch.save(state, file)


WRITERS = {"saelens": write_saelens, "sparsify": write_sparsify, "dictionary_learning": write_dictionary_learning}


# ---------------------------------------------------------------------- the way back


def write_ours(folder: Path) -> None:
    """One SAE for each rule, saved by us, with what it does to the inputs. Runs in our own environment."""
    import torch

    from sae_tutorial import SAEConfig, SparseAutoencoder, save_sae
    from sae_tutorial.autoencoder.config import BUDGET_RULES, PENALTY_RULES

    variants: list[tuple[str, str, dict[str, Any]]] = [(rule, rule, {}) for rule in BUDGET_RULES + PENALTY_RULES]
    variants += [("relu", "tied", {"tied": True, "b_dec": False}), ("relu", "transcoder", {"d_out": 5})]
    variants += [("mutual_choice", "skip_transcoder", {"d_out": 5, "skip": True})]
    for rule, name, more in variants:
        sae = SparseAutoencoder(SAEConfig(D_IN, D_SAE, rule, K if rule in BUDGET_RULES else None, **more))
        with torch.no_grad():
            for weight in (sae.b_enc, sae.b_dec) + ((sae.r_mag, sae.b_mag) if rule == "gated" else ()):
                if weight.requires_grad:
                    weight.add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)))
            sae.mean.add_(0.5)
            sae.scale.fill_(1.7)
            if sae.config.is_transcoder:
                sae.out_scale.fill_(0.6)
            if rule not in ("relu", "gated", "token_choice"):
                sae.threshold.copy_(0.1 + 0.2 * torch.rand(sae.threshold.shape))
            save_sae(sae, folder / name, model_name="stories", hook_name="blocks.1.hook_resid_post")
            keep_example(folder / name, x=inputs(), codes=sae.encode(inputs()).to_dense(), x_hat=sae(inputs()))


def check_ours(folder: Path, out: Path) -> None:
    """Open them with SAELens, and write down the largest difference."""
    import sae_lens
    from safetensors.torch import load_file

    results = {}
    for one in sorted(folder.iterdir()):
        example, sae = load_file(one / "example.safetensors"), sae_lens.SAE.load_from_disk(one)
        results[one.name] = {
            "architecture": sae.cfg.architecture(),
            "codes": (sae.encode(example["x"]) - example["codes"]).abs().max().item(),
            "reconstruction": (sae(example["x"]) - example["x_hat"]).abs().max().item(),
        }
    content = {"sae-lens": version("sae-lens"), "largest difference": results}
    (out / "saelens_reads_ours.json").write_text(json.dumps(content, indent=2) + "\n")
    worst = max(result["reconstruction"] for result in results.values())
    print(f"SAELens reads {len(results)} of our folders; reconstructions differ by {worst:.1e} at most")
    if worst > 1e-5:
        sys.exit("that is more than 1e-5")


if __name__ == "__main__":
    main()
