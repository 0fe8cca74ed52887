"""How much faster is gradient pursuit of a batch than of one token after the other?

    python benchmarks/pursuit.py       results/pursuit.json (2 minutes)

The residual stream of the embedded model, written with the decoder of the shipped SAE, each token with as many features
as the SAE's own encoder gave it. Once as a batch (`gradient_pursuit`), once by the loop over tokens that its definition
is: one product with the dictionary for each feature of each token. Both find the same codes, which is checked first.
"""

from __future__ import annotations

import common
import torch

from sae_tutorial import SparseCodes, load_language_model, reference_sae, story_tokens
from sae_tutorial.activations.forward import read_hook
from sae_tutorial.autoencoder.pursuit import gradient_pursuit

TOKENS = {"quick": 64, "cpu": 2_048, "cuda": 8_192}
ALONE = {"quick": 16, "cpu": 128, "cuda": 128}  # of these, the tokens that also go one by one


def one_by_one(x: torch.Tensor, dictionary: torch.Tensor, l0: list[int]) -> SparseCodes:
    """Token by token, feature by feature; only the rows that a token holds are multiplied again."""
    values, tokens, features = [], [], []
    for b, (target, rounds) in enumerate(zip(x, l0)):
        held, strength, left = [], target.new_zeros(0), target
        for _ in range(rounds):
            fit = dictionary @ left
            new = int(fit.argmax())
            if new not in held:
                held.append(new)
                strength = torch.cat([strength, strength.new_zeros(1)])
            rows = dictionary[held]
            gradient = fit[held]
            move = gradient @ rows
            strength = (strength + (move @ left) / (move @ move) * gradient).clamp(min=0)
            left = target - strength @ rows
        values.append(strength)
        tokens.append(torch.full((len(held),), b))
        features.append(torch.tensor(held, dtype=torch.int64))
    found = SparseCodes.from_matches(
        torch.cat(values), torch.cat(tokens).to(x.device), torch.cat(features).to(x.device), (len(x), len(dictionary))
    )
    return found.where(found.values > 0)


def main() -> None:
    args = common.parser(__doc__).parse_args()
    device = common.device_of(args)
    described = common.machine(device)
    torch.set_grad_enabled(False)
    model, sae = load_language_model("stories", device=device), reference_sae().to(device)
    size = "quick" if args.quick else device
    n, alone = TOKENS[size], ALONE[size]
    with read_hook(model, str(sae.hook_name)) as read:
        x = read(story_tokens(256 * (n // 255 + 1), 256, seed=0).to(device))[:, 1:].flatten(0, 1)[:n]
    l0, target = sae.encode(x).l0(), sae.normalise(x) - sae.b_dec
    W_dec = sae.W_dec.detach().contiguous()

    codes = gradient_pursuit(target[:alone], W_dec, l0[:alone])
    apart = float((codes.to_dense() - one_by_one(target[:alone], W_dec, l0[:alone].tolist()).to_dense()).abs().max())
    if apart > 1e-3:
        raise SystemExit(f"the two differ by {apart:.3g}")
    run = {
        "batch": common.timed(lambda: gradient_pursuit(target, W_dec, l0), device),
        "one by one": common.timed(lambda: one_by_one(target[:alone], W_dec, l0[:alone].tolist()), device),
    }
    taken = common.take_turns(run, 2 if args.quick else args.rounds, "pursuit")
    each = {"batch": [t / n for t in taken["batch"]], "one by one": [t / alone for t in taken["one by one"]]}
    faster = common.ratio(each["one by one"], each["batch"])
    where = f"d={x.shape[1]} F={len(W_dec):,}, {n:,} tokens, mean L0 {float(l0.float().mean()):.0f}"
    targets = [common.target("gradient pursuit of a batch, faster than token by token", where, faster, at_least=20)]
    fvu = {
        "encoder": sae.decode(sae.encode(x)),
        "pursuit": sae.decode(gradient_pursuit(target, W_dec, l0)),
    }
    fvu = {name: float((y - x).square().sum() / (x - x.mean(0)).square().sum()) for name, y in fvu.items()}
    rows = [[name, f"{1000 * common.spread(times)['median']:.1f}"] for name, times in each.items()]
    tables = [common.table(f"Gradient pursuit, {where}", ["what", "µs per token"], rows)]
    settings = {"rounds": args.rounds, "tokens": n, "alone": alone, "largest_difference": apart, "fvu": fvu}
    question = "how much faster gradient pursuit of a batch is than that of one token after the other"
    common.finish(args, "pursuit", question, described, raw=each, settings=settings, tables=tables, targets=targets)


if __name__ == "__main__":
    main()
