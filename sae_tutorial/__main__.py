"""python -m sae_tutorial, which is also installed as `sae-tutorial`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from sae_tutorial import __version__

FAILED, INTERRUPTED = 1, 130  # exit codes; 2 is argparse's, for a command line that makes no sense
# What is told in one line: something is wrong with what was asked for, or with the machine.
EXPECTED = (ValueError, TypeError, OSError, ImportError, FloatingPointError, MemoryError, RuntimeError)


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0; 1 with the error in one line; 130 if it was interrupted."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if "--quiet" in argv:
        os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported, which the parser's modules do
    debug = "--debug" in argv
    try:
        if argv == ["--version"]:  # at once: the parser's modules take seconds to import
            print(__version__)
            return 0
        args = parser().parse_args(argv)
        from sae_tutorial.activations.ranks import Ranks, started_by_torchrun

        with started_by_torchrun():
            if Ranks.here().world > 1 and not args.shared:
                raise ValueError(
                    f"{argv[0]} is for one process: start it without torchrun; train and harvest share work"
                )
            args.run(args)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output, `head` for example, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except EXPECTED as error:
        if debug:
            raise
        told = " ".join(" ".join([str(error), *getattr(error, "__notes__", [])]).split())
        print(f"error: {told or type(error).__name__}", file=sys.stderr)
        return FAILED
    return 0


def parser() -> argparse.ArgumentParser:
    from sae_tutorial.autoencoder.config import RULES, SAEConfig
    from sae_tutorial.commands import caches, page, work
    from sae_tutorial.commands.options import add_fields, value_of
    from sae_tutorial.commands.sources import TEXTS, Reading
    from sae_tutorial.training.settings import TrainSettings

    top = argparse.ArgumentParser("sae-tutorial", description="Sparse autoencoders from the command line.")
    top.add_argument("--version", action="version", version=__version__, help="say which version this is")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, reads: bool = True, leave_out: Sequence[str] = ()) -> argparse.ArgumentParser:
        told = str(run.__doc__)
        one = commands.add_parser(name, help=told.partition(".")[0], description=told)
        one.set_defaults(run=run, shared=run in (work.harvest, work.train))
        one.add_argument("--quiet", action="store_true", help="no progress bars")
        one.add_argument("--debug", action="store_true", help="an error with its traceback, not in one line")
        if reads:
            add_fields(one, Reading, "what is read", leave_out, TEXTS)
        return one

    one = command("harvest", work.harvest)
    one.add_argument("--out", help="folder; default: the cache")
    one = command("train", work.train)
    one.add_argument("--config", metavar="FILE.toml", help="settings; flags have the last word")
    one.add_argument("--out", default=argparse.SUPPRESS, help="folder for the SAEs and the checkpoint (default saes)")
    one.add_argument("--store", default=argparse.SUPPRESS, help="folder of a harvest, in the place of making one")
    one.add_argument("--checkpoint-every", type=int, default=200, metavar="STEPS", help="(default 200)")
    one.add_argument("--again", action="store_true", help="replace SAEs that are there")
    one.add_argument(
        "--split",
        type=value_of,
        default="auto",
        metavar="VALUE",
        help="under torchrun: what processes share, the tokens of each batch, the features of the SAE, both, as in "
        "(2, 4) for 2 parts of the tokens and 4 of the features, or saes (default auto: saes if there are several, "
        "else tokens)",
    )
    one.add_argument(
        "--rule",
        nargs="+",
        choices=list(RULES),
        default=argparse.SUPPRESS,
        help=f"one SAE for each (default {SAEConfig.rule})",
    )
    add_fields(one, SAEConfig, "the SAE", (*work.NOT_SAID, "rule"), usual=work.USUAL)
    add_fields(one, TrainSettings, "training")
    one = command("evaluate", work.evaluate, leave_out=("dtype",))
    one.add_argument("folders", nargs="+", metavar="FOLDER")
    one.add_argument("--json", action="store_true", help="for programs")
    one = command("report", page.report, leave_out=("dtype",))
    one.add_argument("folder", metavar="FOLDER")
    one.add_argument("--out", metavar="FILE.html", help="default: report.html in the folder")
    one.add_argument("--features", type=int, default=8, help="pages in each group (default 8)")
    one.add_argument("--neuronpedia", metavar="FOLDER", help="also all features that fire, in Neuronpedia's files")
    one.add_argument("--model-id", help="Neuronpedia's name of the model (default: the last part of its own)")
    one.add_argument("--sae-set", help="under which Neuronpedia shows the SAE (default: the folder's name)")
    command("models", caches.models, reads=False)
    one = command("clean", caches.clean, reads=False)
    one.add_argument("names", nargs="*", metavar="NAME", help="what is deleted; none: only show")
    return top


if __name__ == "__main__":
    sys.exit(main())
