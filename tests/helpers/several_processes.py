"""Runs a function in several processes of one torch.distributed group (gloo), and the functions that tests run so."""

import multiprocessing
import os
import pickle
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from synthetic import store_and_held_out

from sae_tutorial import ActivationStore, SAEConfig, SparseAutoencoder, train
from sae_tutorial.activations.ranks import Ranks, grid_of
from sae_tutorial.allocation import rules
from sae_tutorial.autoencoder import distributed
from sae_tutorial.autoencoder.config import BUDGET_RULES
from sae_tutorial.autoencoder.parts import joined
from sae_tutorial.autoencoder.sae import features_of
from sae_tutorial.training.loop import train_many
from sae_tutorial.training.step import Trainee

TIMEOUT = 240  # seconds, for all processes of a test


def in_processes(world, act, folder, *args):
    """What `act(*args)` returns in each of `world` processes; the exception where it raises, None where it ended."""
    folder = Path(folder)
    spawn = multiprocessing.get_context("spawn")
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.result"):
        old.unlink()
    meeting = folder / f"meeting-{os.urandom(4).hex()}"
    all_of = [spawn.Process(target=_child, args=(rank, world, meeting, act, args)) for rank in range(world)]
    for one in all_of:
        one.start()
    for one in all_of:
        one.join(TIMEOUT)
        if one.is_alive():
            one.kill()
    found = [folder / f"{rank}.result" for rank in range(world)]
    return [pickle.loads(path.read_bytes()) if path.exists() else None for path in found]


def _child(rank, world, meeting, act, args):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world)
    try:
        result = act(*args)
    except Exception as error:
        result = error
    (meeting.parent / f"{rank}.result").write_bytes(pickle.dumps(result))
    os._exit(0)  # without waiting for others, which may be gone


def in_turn(act, each):
    """What `act` returns, or raises, for each of several arguments, in the same processes."""
    found = []
    for args in each:
        try:
            found.append(act(*args))
        except Exception as error:
            found.append(error)
    return found


# ---------------------------------------------------------------------- what they do


def random_table(seed):
    """Affinities with many ties, a rule's budget, and how tokens are dealt out to ranks: anything may be empty."""
    generator = torch.Generator().manual_seed(seed)

    def whole(low, high):
        return int(torch.randint(low, high + 1, (), generator=generator))

    B, F = whole(1, 40), whole(1, 60)
    dtype = (torch.float32, torch.bfloat16, torch.float64)[whole(0, 2)]
    table = torch.randn(B, F, generator=generator, dtype=torch.float64)
    if whole(0, 1):
        table = (table * 2).round() / 2  # few different numbers
    if whole(0, 3) == 0:
        table = table.T.contiguous().T  # lies feature after feature
    largest = whole(0, B * F + 5)
    budget = torch.randint(0, whole(1, B + 3), (F,), generator=generator) if whole(0, 1) else largest
    guess = float(table.max()) * 0.5 if whole(0, 1) else None
    cuts = sorted(whole(0, B) for _ in range(8))
    return table.to(dtype), budget, guess, cuts


def selections(n, features=1):
    """Of how many of n random tables this rank's part of the matches is what the rule says of the whole table, for a
    grid with so many parts of the features."""
    ranks, equal = Ranks.here(), 0
    with grid_of(ranks, features) as grid:
        for seed in range(n):
            table, budget, guess, cuts = random_table(seed)
            owner = "feature" if isinstance(budget, torch.Tensor) else ("batch", "token")[seed % 2]
            rows = [0, *cuts[: grid.tokens.world - 1], len(table)][grid.tokens.rank :]
            columns = features_of(grid.features.part, table.shape[1])
            mine = table[rows[0] : rows[1], columns.start : columns.stop]
            own = budget[columns.start : columns.stop] if owner == "feature" else budget
            listed = distributed.nominees(grid, mine, owner, own, table.numel(), guess)
            found = distributed.strongest(grid, listed, owner, own)
            rule = {"feature": rules.feature_choice, "token": rules.token_choice, "batch": rules.mutual_choice}[owner]
            whole = rule(table, budget)
            here = (whole.tokens >= rows[0]) & (whole.tokens < rows[1])
            here &= (whole.features >= columns.start) & (whole.features < columns.stop)
            expected = whole.where(here)
            same = (found.tokens + rows[0]).tolist() == expected.tokens.tolist()
            same = same and (found.features + columns.start).tolist() == expected.features.tolist()
            equal += same and found.values.tolist() == expected.values.tolist()
    return equal


def of_rule(rule, **more):
    k = {"k": 3} if rule in BUDGET_RULES else {}
    return SparseAutoencoder(SAEConfig(16, 48, rule, **k, **more), seed=0)


CASES = {
    "token_choice": {},
    "mutual_choice": {"dead_after": 600, "resample_at": (0.5,)},
    "feature_choice": {"rerank_every": 4},
    "matryoshka": {},
    "relu": {"l1": 0.1, "p_end": 0.5, "dead_after": 600, "resample_at": (0.5,)},
    "gated": {"l1": 0.1},
    "jumprelu": {"target_l0": 4.0},
    "bfloat16": {"encoder_dtype": "bfloat16"},
    "floor": {},
    "aux_zipf": {"aux_k": 0.0, "aux_zipf": 0.1, "rerank_every": 2},
    "gradients": {},
}
CONFIGS = {  # where a case is not the name of its rule
    "bfloat16": ("mutual_choice", {}),
    "floor": ("mutual_choice", {"relative": True, "floor": 0.1}),
    "aux_zipf": ("token_choice", {}),
    "gradients": ("mutual_choice", {"beta": 1.0}),
}


def trained(steps, batch_size, names=tuple(CASES), split="auto"):
    """Name -> weights, buffers and metrics, and densities, of a short training of each of these cases."""
    store, *_ = store_and_held_out()
    found = {}
    for name in names:
        rule, config = CONFIGS.get(name, (name, {}))
        sae = of_rule(rule, **config)
        how = {"steps": steps, "batch_size": batch_size, "progress": False, "split": split}
        run = train(sae, store, **how, **CASES[name])
        found[name] = dict(sae.state_dict()), run.metrics, run.density
    return found


def trained_parts(steps, batch_size, parts):
    """The same, where no rank has more than a part of the SAE; how many features that are, and what it refuses."""
    store, *_ = store_and_held_out()
    ranks = Ranks.here()
    sae = SparseAutoencoder(SAEConfig(16, 48, "mutual_choice", k=3), seed=0, part=(ranks.rank % parts, parts))
    run = train(sae, store, steps=steps, batch_size=batch_size, progress=False)
    said = ""
    try:
        sae(store.rows(slice(0, 3)))
    except ValueError as error:
        said = str(error)
    with grid_of(ranks, parts) as grid:
        whole, density = joined(sae, grid.features), grid.features.joined(run.density)
    return {"parts": (dict(whole.state_dict()), run.metrics, density)}, len(sae.b_enc), said


def swept(checkpoint=None):
    """Three SAEs side by side; how often on_step was called here, and for how many SAEs."""
    store, *_ = store_and_held_out()
    saes = [SparseAutoencoder(SAEConfig(16, 48, "mutual_choice", k=k), seed=k) for k in (2, 3, 4)]
    seen = []
    runs = train_many(
        saes,
        store,
        steps=10,
        batch_size=128,
        checkpoint=checkpoint,
        checkpoint_every=5,
        on_step=lambda step, each: seen.append((step, len(each))),
        progress=False,
    )
    return [(dict(run.sae.state_dict()), run.metrics, run.density, run.sae.hook_name) for run in runs], seen


def stopped(checkpoint, at, rank, split="auto", rule="feature_choice"):
    """A training in which one process ends without a word, after so many steps; then all of it, if it goes on."""
    if at is not None and Ranks.here().rank == rank:
        advance = Trainee.advance

        def and_end(self, *args):
            advance(self, *args)
            if self.step == at:
                os._exit(1)

        Trainee.advance = and_end
    store, *_ = store_and_held_out()
    sae = of_rule(rule)
    how = {"steps": 20, "batch_size": 128, "checkpoint": checkpoint, "checkpoint_every": 5, "resume": "auto"}
    run = train(sae, store, **how, progress=False, split=split)
    return dict(sae.state_dict()), run.metrics, run.resumed_at


def refused(what):
    """Ranks that were given different things."""
    store, *_ = store_and_held_out()
    rank = Ranks.here().rank
    if what == "steps":
        return train(of_rule("token_choice"), store, steps=5 + rank, progress=False)
    if what == "checkpoint":
        path = f"somewhere-{os.getpid()}.pt" if rank == 0 else None
        return train(of_rule("token_choice"), store, steps=5, checkpoint=path, progress=False)
    if what == "on_step":

        def enough(step, metrics):
            raise KeyError("enough")

        return train(of_rule("token_choice"), store, steps=50, on_step=enough, progress=False)
    if what == "store":
        acts = store.rows(slice(0, 1000)) * (1 + rank)
        return train(of_rule("token_choice"), ActivationStore.from_tensor(acts), steps=5, batch_size=64, progress=False)
    if what in ("frozen", "dtype", "setting"):
        sae, more = of_rule("token_choice"), {"speed": 3} if what == "setting" and rank else {}
        if what == "frozen":
            sae.W_enc.requires_grad_(rank == 0)
        return train(sae.double() if what == "dtype" and rank else sae, store, steps=5, progress=False, **more)
    if isinstance(what, tuple):  # a part that is another rank's, or a split that is none
        part = {"part": (1 - rank, 2)} if what[1] == "features" else {}
        sae = SparseAutoencoder(SAEConfig(16, 48, "token_choice", k=3), **part)
        return train(sae, store, steps=5, split=what[1], progress=False)
    return train(of_rule("token_choice"), store, steps=5, checkpoint=what, progress=False)


def ended_by_one(split):
    """What each rank of a training meets in which the last one stops in step 3, and lives on."""
    store, *_ = store_and_held_out()
    ranks, seen = Ranks.here(), []
    advance = Trainee.advance

    def fails_once(trainee, *batch):
        seen.append(trainee)
        if ranks.rank == ranks.world - 1 and len(seen) == 3:
            raise MemoryError("no more")
        return advance(trainee, *batch)

    with mock.patch.object(Trainee, "advance", fails_once):
        try:
            train_many([of_rule("token_choice") for _ in range(2)], store, steps=500, split=split, progress=False)
        except Exception as error:
            met = type(error).__name__
    return ranks.all_objects(met)  # the group that was there before is as it was


def told_on_rank_0():
    """How often an `on_step` is called that rank 0 alone has."""
    store, *_ = store_and_held_out()
    seen = []
    of_mine = {"on_step": lambda step, metrics: seen.append(step)} if Ranks.here().rank == 0 else {}
    train(of_rule("token_choice"), store, steps=20, batch_size=64, log_every=10, progress=False, **of_mine)
    return seen


def where_some_tokens_miss_nothing():
    """A training on tokens of which half are zero, and reconstructed as zero: aux is a mean over the others."""
    generator = torch.Generator().manual_seed(0)
    acts = torch.randn(400, 8, generator=generator)
    acts[::2] = 0
    acts[:40] = 0
    config = SAEConfig(8, 32, "token_choice", k=1, normalise=False, b_dec=False)
    sae = SparseAutoencoder(config, seed=0)
    sae.b_enc.requires_grad_(False)
    store = ActivationStore.from_tensor(acts)
    how = {"aux_k": 1.0, "dead_after": 9, "batch_size": 9, "steps": 8}
    run = train(sae, store, **how, progress=False)
    return dict(sae.state_dict()), run.metrics


def errors_that_travel():
    """What each rank gets where rank 0 raises something that pickle cannot send, or changes on its way."""

    class Local(ValueError):
        pass

    class TwoArguments(ValueError):
        def __init__(self, one, other):
            super().__init__(f"{one} and {other}")

    found = []
    for error in (Local("here"), TwoArguments(1, 2), OSError("disk")):
        try:
            Ranks.here().first_does(lambda error=error: (_ for _ in ()).throw(error))
        except Exception as raised:
            found.append(f"{type(raised).__name__}: {raised}")
    return found


def harvested(folder):
    """A harvest into one folder that all share: what is in it, and how many shards were written here."""
    from tiny_model import rows, tiny_model

    from sae_tutorial.activations.shards import Shard

    model, write, mine = tiny_model(Path(folder) / "tokenizer"), Shard.write, []
    how = {"cache_dir": folder, "batch_size": 2, "shard_bytes": 1, "progress": False}
    with mock.patch.object(Shard, "write", lambda path, *args: (mine.append(path.name), write(path, *args))):
        store = ActivationStore.harvest(model, rows(21), "blocks.0.hook_resid_post", **how)
    return store.rows(slice(0, len(store))), mine
