"""How much memory a network takes at its peak: measured in a fresh process, which does nothing else."""

import json
import subprocess
import sys

#: Times that the network runs: at the second, everything that is kept from call to call is there.
_CALLS = 2


def peak_of(case, entrant, threads):
    """Return the peak of a process that runs one case with one entrant.

    Parameters
    ----------
    case : Case
        What to run.
    entrant : str
        Who runs it.
    threads : int
        On how many threads.

    Returns
    -------
    int or None
        Bytes, Python and libraries included; None where this system does not tell, or the process failed.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; from benchmarks import memory; memory.child()"
    arguments = json.dumps([case.name, entrant, threads])
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, arguments], capture_output=True, text=True, check=False
    )
    lines = result.stdout.splitlines()
    return json.loads(lines[-1]) if result.returncode == 0 and lines else None


def child():
    """Run a case, and print the peak of this process as JSON."""
    from benchmarks import cases, entrants
    from tinyseg import backend

    name, who, threads = json.loads(sys.argv[1])
    backend.set_num_threads(threads)
    entrants.share_threads([who])
    case = cases.named(name)
    entrant = case.subject.entrant(who, case.direction)
    for _ in range(_CALLS):
        entrant.call()
    print(json.dumps(peak()))


def peak():
    """Return the most bytes of memory that this process ever had, or None where the system does not tell."""
    try:
        # not resource.getrusage: on Linux, what it says includes the process that started this one
        with open("/proc/self/status", encoding="utf-8") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
