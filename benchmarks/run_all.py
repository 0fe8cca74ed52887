"""Every benchmark, one after the other, then the tables of benchmarks/README.md: what `make bench` runs.

    python benchmarks/run_all.py                                on the device that is there (20 minutes on 2 cores)
    python benchmarks/run_all.py --only training_step memory    some of them
    python benchmarks/run_all.py --quick                        tiny sizes, to see that everything runs; writes nothing

A benchmark that fails does not stop the others; the command fails at the end, and says which.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import common
import report

HERE = Path(__file__).resolve().parent


def main() -> int:
    parser = common.parser(__doc__, writes=False)
    parser.set_defaults(rounds=None)
    parser.add_argument("--only", nargs="+", choices=report.ORDER, default=report.ORDER)
    parser.add_argument("--environments", help="passed to training_step.py: where the peers' environments are")
    args = parser.parse_args()
    flags = ["--device", common.device_of(args)] + (["--quick"] if args.quick else [])
    flags += ["--rounds", str(args.rounds)] if args.rounds else []
    failed = []
    for name in args.only:
        more = ["--environments", args.environments] if name == "training_step" and args.environments else []
        print(f"\n== benchmarks/{name}.py", flush=True)
        start = time.perf_counter()
        if subprocess.run([sys.executable, HERE / f"{name}.py", *flags, *more]).returncode:
            failed.append(name)
        print(f"({time.perf_counter() - start:.0f} s)", flush=True)
    if not args.quick:
        sys.argv = sys.argv[:1]
        report.main()
    if failed:
        print(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
