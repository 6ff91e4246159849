"""Measuring case after case: progress, what is kept when it is stopped, and what is left in the folder at the end."""

import sys

from benchmarks import entrants, measure, memory, peaks, plots, report, results
from tinyseg import backend, files


def run(chosen, args, command):
    """Measure cases, write the results to ``args.out`` and return them: a `results.Run`.

    Parameters
    ----------
    chosen : list of Case
        What to measure.
    args : argparse.Namespace
        ``backends``, ``against``, ``turns``, ``seconds``, ``no_memory``, ``out``.
    command : str
        What was typed.
    """
    names, absent = entrants.chosen(args.backends, args.against)
    for name, why in absent.items():
        print(f"not measured: {name}, because {why}")
    folder = files.make_folder(args.out)
    threads = backend.get_num_threads()
    entrants.share_threads(names)
    limits = limits_of(names[0], threads)
    found = results.Run(command, entrants.machine(names), limits, [], absent)
    print(
        f"{plots.machine_line(found.machine)}: {limits['flops'] / 1e9:.0f} GFLOP/s of multiply-adds, "
        f"{limits['bytes'] / 1e9:.1f} GB/s of copying"
    )
    effort = measure.Effort(args.turns, args.seconds)
    try:
        for case in _progress(chosen):
            row = measured(case, names, effort)
            if row is None:
                continue
            if case.kind == "models" and not args.no_memory:
                row.memory = _memory(case, row, threads)
            found.rows.append(row)
            results.write(folder / "results.json", found)  # after every row: even a killed run leaves something
            _print(report.line(row, names, limits))
    except KeyboardInterrupt:
        found.complete = False
    leave(folder, found)
    return found


def limits_of(name, threads):
    """Return the peaks of what an entrant runs on: the GPU, or so many threads of the processor."""
    if not entrants.on_gpu(name):
        return peaks.peaks(threads)
    from benchmarks import gpu_peaks

    return gpu_peaks.peaks()


def measured(case, names, effort):
    """Return the row of a case, or None if none of ``names`` takes part."""
    taking_part = case.entrants(names)
    if not taking_part:
        return None
    subject, direction = case.subject, case.direction
    timings, written = measure.measure(taking_part, subject.reference(direction), subject.allowed(direction), effort)
    read = subject.bytes_read(direction)
    size = read + written if read else 0  # a network's are not known
    return results.Row(case.name, subject.flops.get(direction), size, subject.checked, timings)


def _memory(case, row, threads):
    """Return the peak memory of everyone who was timed; what a GPU's memory holds is not counted."""
    timed = [name for name in row.timings if row.spread(name) and not entrants.on_gpu(name)]
    peaks_of = {name: memory.peak_of(case, name, threads) for name in timed}
    return {name: value for name, value in peaks_of.items() if value is not None}


def leave(folder, found):
    """Write the results as JSON, Markdown and pictures, and say so."""
    results.write(folder / "results.json", found)
    if found.rows:
        files.write_text(folder / "results.md", report.markdown(found))
        plots.draw_all(folder, found)
    for line in report.summary(found):
        print(line)
    print(f"{len(found.rows)} rows saved in {folder}" + ("" if found.complete else ", which is all until you stopped"))


def _progress(chosen):
    """Yield the cases, with a bar that names the one being measured."""
    from tqdm import tqdm

    with tqdm(chosen, unit="row", leave=False, disable=None) as bar:
        for case in bar:
            bar.set_postfix_str(case.name[:60])
            yield case


def _print(line):
    """Print a line above the bar."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()
