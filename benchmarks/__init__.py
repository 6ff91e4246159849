"""How fast tinyseg is, beside other libraries on the same machine: ``python -m benchmarks``, or ``tinyseg bench``.

``cases`` says what is measured and ``measure`` how; ``peaks`` what this machine could do at best; ``results`` keeps
and compares the numbers, ``report`` and ``plots`` show them.
"""

#: Tells this package from another of the same name.
PROJECT = "tinyseg"
#: Sizes of the cases; see ``cases``.
SIZES = ("S", "M", "L")
