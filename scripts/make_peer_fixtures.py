"""SAEs written by the real SAELens, sparsify and dictionary_learning, as fixtures for our tests; and the way back.

    python scripts/make_peer_fixtures.py --cache FOLDER [--out tests/fixtures/peers] [--only saelens …]

Each library lives in an environment of its own below FOLDER (about 2 GB each, made once; sae-lens cannot be installed
beside our transformer-lens). It writes small SAEs in its own format, with inputs, codes and reconstructions beside
them in `example.safetensors`. Then the library opens what `save_sae` wrote for it, and what it computes of a few inputs
goes into `read_by_NAME.json`.

The script runs itself inside these environments (`--inside`), so nothing that must be installed is imported at the top.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peer_environments import OLD, PACKAGES, environment, run

D_IN, D_SAE, K, TOKENS = 8, 16, 4, 24
RECORDED = 3  # tokens of what the others make of our SAEs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, help="where the environments are, or will be")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "tests" / "fixtures" / "peers")
    parser.add_argument("--only", nargs="+", choices=[*PACKAGES, *OLD], default=[*PACKAGES, *OLD])
    parser.add_argument("--inside", choices=[*PACKAGES, *OLD], help=argparse.SUPPRESS)
    parser.add_argument("--ours", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.ours:
        record(args.inside, args.ours, args.out)
    elif args.inside:
        WRITERS[args.inside](args.out / args.inside)
    elif args.cache is None:
        parser.error("--cache is needed: a folder for the environments")
    else:
        for name in args.only:
            python = environment(args.cache.resolve(), name)
            shutil.rmtree(args.out / name, ignore_errors=True)
            run(python, __file__, "--inside", name, "--out", args.out.resolve())
            if name in PACKAGES:
                with tempfile.TemporaryDirectory() as folder:
                    write_ours(name, Path(folder))
                    run(python, __file__, "--inside", name, "--ours", folder, "--out", args.out.resolve())


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
    for name, kind, config in (
        ("abstopk", sae_lens.AbsTopKSAE, sae_lens.AbsTopKSAEConfig),
        ("matching_pursuit", sae_lens.MatchingPursuitSAE, sae_lens.MatchingPursuitSAEConfig),
    ):
        kind(config(**sizes)).save_model(out / f"unknown_{name}")
    scaled = sae_lens.JumpReLUSAE(sae_lens.JumpReLUSAEConfig(**sizes, normalize_activations="expected_average_only_in"))
    shake(scaled)
    scaled.save_model(out / "scaled")
    keep_example(out / "scaled", x=inputs(), codes=scaled.encode(inputs() / 2), x_hat=2 * scaled(inputs() / 2))
    keep_versions(out, "sae-lens", "torch", "transformer-lens")
    write_gemma_scope(out.parent / "gemma_scope")


def write_gemma_scope(out: Path) -> None:
    """params.npz as Gemma Scope has it, read by SAELens as if it had come from the hub."""
    import numpy as np
    import sae_lens
    from sae_lens.loading import pretrained_sae_loaders as loaders

    folder = out / "google" / "gemma-scope-2b-pt-res" / "layer_3" / "width_16k" / "average_l0_4"
    folder.mkdir(parents=True)
    sae = sae_lens.JumpReLUSAE(sae_lens.JumpReLUSAEConfig(d_in=D_IN, d_sae=D_SAE))
    shake(sae)
    np.savez(folder / "params.npz", **{name: tensor.numpy() for name, tensor in sae.state_dict().items()})
    loaders.hf_hub_download = lambda *args, **kwargs: folder / "params.npz"  # instead of the hub
    overrides = {"d_in": D_IN, "d_sae": D_SAE}
    found = loaders.gemma_2_sae_huggingface_loader(
        "google/gemma-scope-2b-pt-res", "layer_3/width_16k", "cpu", cfg_overrides=overrides
    )
    cfg, weights, _ = found
    theirs = sae_lens.SAE.from_dict(loaders.handle_config_defaulting(cfg))
    theirs.load_state_dict(weights)
    keep_example(folder, x=inputs(), codes=theirs.encode(inputs()), x_hat=theirs(inputs()))


def write_old_saelens(out: Path) -> None:
    """SAELens before version 6: everything in one flat config, with an activation function beside the architecture."""
    from dataclasses import fields

    import torch
    from sae_lens import SAE, SAEConfig

    plain: dict[str, Any] = {"architecture": "standard", "d_in": D_IN, "d_sae": D_SAE, "activation_fn_str": "relu"}
    plain |= {"apply_b_dec_to_input": True, "finetuning_scaling_factor": False, "context_size": 128}
    plain |= {"model_name": "gpt2-small", "hook_name": "blocks.3.hook_resid_pre", "hook_layer": 3, "prepend_bos": True}
    plain |= {"hook_head_index": None, "dataset_path": "text", "dataset_trust_remote_code": True, "device": "cpu"}
    plain |= {"normalize_activations": "none", "dtype": "float32", "sae_lens_training_version": None}
    topk = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    variants: dict[str, dict[str, Any]] = {
        "standard": {},
        "not_subtracted": {"apply_b_dec_to_input": False},
        "gated": {"architecture": "gated"},
        "jumprelu": {"architecture": "jumprelu", "apply_b_dec_to_input": False},
        "standard_topk": topk,
        "finetuned": {"finetuning_scaling_factor": True},
        "head": {"hook_name": "blocks.3.attn.hook_q", "hook_head_index": 2},
        "scaled": {"normalize_activations": "expected_average_only_in"},
        "layer_norm": {"normalize_activations": "layer_norm"},
        "constant_norm_rescale": {"normalize_activations": "constant_norm_rescale"},
        "tanh": {"activation_fn_str": "tanh-relu"},
        "gated_topk": topk | {"architecture": "gated"},
    }
    if "topk" in str(next(field for field in fields(SAEConfig) if field.name == "architecture").type):
        variants["topk"] = topk | {"architecture": "topk"}
    for name, more in variants.items():
        sae = SAE(SAEConfig(**plain | more))
        shake(sae)
        (out / name).mkdir(parents=True)
        sae.save_model(str(out / name))
        factor = 0.5 if name == "scaled" else 1.0  # what its store multiplies activations by
        with torch.no_grad():
            codes, x_hat = sae.encode(inputs() * factor), sae(inputs() * factor) / factor
        keep_example(out / name, x=inputs(), codes=codes, x_hat=x_hat)
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
WRITERS |= dict.fromkeys(OLD, write_old_saelens)


# ---------------------------------------------------------------------- the way back


def ours() -> Iterator[tuple[str, Any]]:
    """An SAE for each rule, and transcoders, with nothing at its default. Runs in our own environment."""
    import torch

    from sae_tutorial import SAEConfig, SparseAutoencoder
    from sae_tutorial.autoencoder.config import BUDGET_RULES, PENALTY_RULES

    variants: list[tuple[str, str, dict[str, Any]]] = [(rule, rule, {}) for rule in BUDGET_RULES + PENALTY_RULES]
    variants += [("relu", "tied", {"tied": True, "b_dec": False}), ("relu", "transcoder", {"d_out": 5})]
    variants += [("mutual_choice", "skip_transcoder", {"d_out": 5, "skip": True})]
    variants += [("token_choice", "topk_transcoder", {"d_out": D_IN})]
    variants += [("token_choice", "topk_skip_transcoder", {"d_out": D_IN, "skip": True})]
    variants += [("mutual_choice", "fraction", {"k": K + 0.5})]
    for rule, name, more in variants:
        budget: dict[str, Any] = {"k": K} if rule in BUDGET_RULES else {}
        sae = SparseAutoencoder(SAEConfig(D_IN, D_SAE, rule, **budget | more))
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for weight_name, weight in sae.named_parameters():
                if weight_name in ("b_enc", "b_dec", "r_mag", "b_mag", "W_skip") and weight.requires_grad:
                    weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
            sae.mean.add_(0.5)
            sae.scale.fill_(1.7)
            if sae.config.is_transcoder:
                sae.out_scale.fill_(0.6)
            if sae.config.how.thresholds:
                sae.threshold.copy_(0.1 + 0.2 * torch.rand(sae.threshold.shape, generator=generator))
        sae.model_name, sae.hook_name = "stories", "blocks.1.hook_resid_post"
        yield name, sae


def write_ours(library: str, folder: Path) -> None:
    """All that this library's format can express."""
    from sae_tutorial import save_sae

    for name, sae in ours():
        try:
            save_sae(sae, folder / name, format=library)
        except ValueError as error:
            print(f"{library}: not {name}: {error}")


def record(library: str, folder: Path, out: Path) -> None:
    """What the library makes of a few inputs: codes as (token, feature, strength), and reconstructions."""
    results = {}
    for one in sorted(folder.iterdir()):
        kind, codes, x_hat = READERS[library](one, inputs()[:RECORDED])
        codes = codes.detach().to_dense()
        found = [[*map(int, place), round(float(codes[tuple(place)]), 6)] for place in codes.nonzero()]
        rows = [[round(value, 6) for value in row] for row in x_hat.tolist()]
        results[one.name] = {"kind": kind, "codes": found, "x_hat": rows}
    content = {"version": version(PACKAGES[library]), "computed": results}
    (out / f"read_by_{library}.json").write_text(json.dumps(content) + "\n")
    print(f"{library} reads {len(results)} of our folders: {', '.join(results)}")


def read_with_saelens(folder: Path, x: Any) -> tuple[str, Any, Any]:
    import sae_lens

    sae = sae_lens.SAE.load_from_disk(folder)
    return sae.cfg.architecture(), sae.encode(x), sae(x)


def read_with_sparsify(folder: Path, x: Any) -> tuple[str, Any, Any]:
    import sparsify

    coder = sparsify.SparseCoder.load_from_disk(folder)
    top = coder.encode(x)
    codes = top.top_acts.new_zeros(len(x), coder.num_latents).scatter(1, top.top_indices.long(), top.top_acts)
    return "transcoder" if coder.cfg.transcode else "topk", codes, coder(x).sae_out


def read_with_dictionary_learning(folder: Path, x: Any) -> tuple[str, Any, Any]:
    from dictionary_learning.utils import load_dictionary

    dictionary, config = load_dictionary(str(folder), device="cpu")
    return config["trainer"]["dict_class"], dictionary.encode(x), dictionary(x)


READERS = {
    "saelens": read_with_saelens,
    "sparsify": read_with_sparsify,
    "dictionary_learning": read_with_dictionary_learning,
}


if __name__ == "__main__":
    main()
