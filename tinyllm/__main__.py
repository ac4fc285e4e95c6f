"""`python -m tinyllm` is the command `tinyllm`; launchers such as torchrun start it so."""

from .cli import main

raise SystemExit(main())
