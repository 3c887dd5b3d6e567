"""`python -m crystallm`, which `torchrun -m crystallm train ...` starts as often as it is told."""

from __future__ import annotations

from crystallm.cli.app import main

if __name__ == "__main__":
    main()
