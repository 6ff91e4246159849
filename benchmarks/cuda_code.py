"""What the compilers make of every CUDA kernel, found out without a GPU: ``python -m benchmarks.cuda_code``.

Every kernel of ``kernels.cuda`` and of its ladders is compiled for two generations of GPUs and both floating types, and
NVIDIA's assembler says how many registers and how much shared and local memory it takes. From these follows the
occupancy: how many of the threads that a multiprocessor can hold find room there. The table is kept in
``cuda_code.json``, for the eye in ``cuda_code.md``; ``--check`` compiles again and says what has changed, and whether a
kernel spills registers, or one of the convolutions and RoI operators keeps arrays in local memory, which is slow.
"""

import argparse
import functools
import importlib
import json
import pkgutil
import platform
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from tinyseg import files
from tinyseg.cli.common import whole_number

PATH = Path(__file__).with_name("cuda_code.json")
#: Compute capabilities that are compiled for: Turing and Hopper.
TARGETS = ((7, 5), (9, 0))
TYPES = ("float32", "float64")
#: Registers by which other versions of the compilers may differ from the stored ones.
MARGIN = 8
#: Files whose kernels keep everything in registers and shared memory, by how their names begin.
NO_LOCAL_MEMORY = (
    *("conv", "correlation", "direct_conv", "gemm", "implicit_gemm", "packing", "roi", "rung", "weight_gradient"),
)

_INSTALL = "install it by: pip install 'tinyseg[cuda-check]'"
#: Distributions that may hold the assembler.
_ASSEMBLERS = ("nvidia-cuda-nvcc", "nvidia-cuda-nvcc-cu12")


class Processor(NamedTuple):
    """What a multiprocessor holds: see "Technical Specifications per Compute Capability" in NVIDIA's CUDA guide.

    Attributes
    ----------
    warps, blocks : int
        Most warps and blocks at a time.
    shared : int
        Bytes of shared memory.
    grain, reserved : int
        Bytes that shared memory is handed out in multiples of, and that each block takes beside its own.
    """

    warps: int
    blocks: int
    shared: int
    grain: int
    reserved: int


PROCESSORS = {
    (7, 5): Processor(warps=32, blocks=16, shared=64 << 10, grain=256, reserved=0),
    (9, 0): Processor(warps=64, blocks=32, shared=228 << 10, grain=128, reserved=1 << 10),
}
#: Of all generations since 2014: threads of a warp; registers of each of the four parts of a multiprocessor, and how
#: many at a time a warp is given.
_WARP, _REGISTERS, _QUARTERS, _REGISTER_GRAIN = 32, 16 << 10, 4, 256


class Code(NamedTuple):
    """What a compiled kernel takes.

    Attributes
    ----------
    threads : int
        Threads of a block.
    registers : int
        Of each thread.
    shared : int
        Bytes of shared memory of each block.
    local : int
        Bytes of local memory of each thread: arrays that did not become registers.
    spills : int
        Bytes written to and read from local memory because there were too few registers.
    occupancy : float
        Threads that run at a time, as a share of those that a multiprocessor can hold.
    """

    threads: int
    registers: int
    shared: int
    local: int
    spills: int
    occupancy: float


def occupancy(processor, threads, registers, shared):
    """Return which share of a multiprocessor's warps can be there at a time.

    Parameters
    ----------
    processor : Processor
        The multiprocessor.
    threads : int
        Threads of a block.
    registers : int
        Registers of a thread.
    shared : int
        Bytes of shared memory of a block.

    Returns
    -------
    float
        0 where not even one block fits.

    Notes
    -----
    As in CUDA's ``cuda_occupancy.h``.
    """
    warps = -(-threads // _WARP)
    of_a_warp = -(-max(registers, 1) * _WARP // _REGISTER_GRAIN) * _REGISTER_GRAIN
    by_registers = _REGISTERS // of_a_warp * _QUARTERS // warps
    of_a_block = -(-(shared + processor.reserved) // processor.grain) * processor.grain
    by_shared = processor.shared // of_a_block if of_a_block else processor.blocks
    return min(processor.warps // warps, processor.blocks, by_registers, by_shared) * warps / processor.warps


# ---- compilers -------------------------------------------------------------------------------------------------------


def compilers():
    """Return the versions of all that takes part in compiling, by name.

    Raises
    ------
    RuntimeError
        If something is not installed, or the simulator is in the compiler's place.
    """
    from kernels.cuda.device import SIMULATED

    if SIMULATED:
        raise RuntimeError("the simulator compiles nothing: unset the environment variable NUMBA_ENABLE_CUDASIM")
    versions = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in ("numba", "numba-cuda"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            raise RuntimeError(f"{name} is not installed; {_INSTALL}") from None
    said = subprocess.run([assembler(), "--version"], capture_output=True, text=True, check=True).stdout
    versions["ptxas"] = re.search(r"V([\d.]+)", said)[1]
    for name in ("nvidia-nvvm", "nvidia-cuda-nvcc-cu12"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


@functools.cache
def assembler():
    """Return the path of ptxas from NVIDIA's package: one that is on the PATH may be too old for the code.

    Raises
    ------
    RuntimeError
        If the package is not installed.
    """
    for name in _ASSEMBLERS:
        try:
            found = [file for file in metadata.files(name) or () if file.stem == "ptxas"]
        except metadata.PackageNotFoundError:
            continue
        if found:
            return str(found[0].locate())
    raise RuntimeError(f"{_ASSEMBLERS[0]}, which holds the assembler ptxas, is not installed; {_INSTALL}")


@functools.cache
def all_kernels():
    """Return every kernel of the files of ``kernels.cuda`` and of its ladders, by name, in alphabetical order."""
    from kernels.cuda.device import KERNELS
    from kernels.ladder import CUDA_OPERATORS

    names = []
    for package in ("kernels.cuda", *(f"kernels.ladder.{operator}" for operator in CUDA_OPERATORS)):
        for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{module.name}")
            names.append(module.name)
    ours = [kernel for kernel in KERNELS if kernel.name.partition(".")[0] in names]
    by_name = {kernel.name: kernel for kernel in sorted(ours, key=lambda kernel: kernel.name)}
    if len(by_name) < len(ours):
        raise RuntimeError("two kernels of a file have the same name")
    return by_name


def compiled(name, target, type_name):
    """Compile a kernel and return its `Code`.

    Parameters
    ----------
    name : str
        Name of the kernel.
    target : (int, int)
        Compute capability.
    type_name : {"float32", "float64"}
        Floating type.

    Raises
    ------
    RuntimeError
        If it does not compile, in one line.
    """
    from numba import types

    from kernels.cuda.device import cuda

    kernel, real = all_kernels()[name], getattr(types, type_name)
    try:
        code, _ = cuda.compile_ptx(kernel.source(real), kernel.signature(real), cc=target)
    except Exception as error:  # of many kinds, and many lines
        lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise RuntimeError(f"does not compile: {lines[0]}") from None
    with tempfile.TemporaryDirectory(prefix="tinyseg-code-") as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(code, encoding="utf-8")
        command = [assembler(), f"-arch=sm_{target[0]}{target[1]}", "-v", str(source), "-o", str(source) + ".o"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"is not assembled: {(done.stderr.splitlines() or ['ptxas ended without a word'])[0]}")
    registers, shared, local, spills = read_report(done.stderr)
    return Code(
        kernel.threads, registers, shared, local, spills,
        round(occupancy(PROCESSORS[target], kernel.threads, registers, shared), 4),
    )  # fmt: skip


def read_report(text):
    """Return registers, bytes of shared memory, of local memory and of spills from what ``ptxas -v`` says.

    Parameters
    ----------
    text : str
        Its report: of a kernel and of the functions that it calls, if any.

    Returns
    -------
    registers, shared, local, spills : int
        The greatest numbers, and of spills the sum.

    Raises
    ------
    RuntimeError
        If it says something else.
    """
    registers = [int(number) for number in re.findall(r"Used (\d+) registers", text)]
    local = [int(number) for number in re.findall(r"(\d+) bytes stack frame", text)]
    spills = [int(number) for number in re.findall(r"(\d+) bytes spill (?:stores|loads)", text)]
    shared = [int(number) for number in re.findall(r"(\d+) bytes smem", text)]
    if not registers or not local or not spills:
        raise RuntimeError(f"ptxas reports something else than registers and stack: {' '.join(text.split())[:200]}")
    return max(registers), max(shared, default=0), max(local), sum(spills)


def compile_all(names, jobs=None):
    """Compile kernels for all targets and types.

    Parameters
    ----------
    names : sequence of str
        Their names.
    jobs : int, optional
        Processes that compile; as many as there are processors, if not given.

    Returns
    -------
    codes : dict of str to Code
        By kernel, target and type: ``"relu.relu_kernel sm_90 float32"``.
    errors : list of str
        What did not compile, a line each.
    """
    wanted = {
        f"{name} sm_{target[0]}{target[1]} {type_name}": (name, target, type_name)
        for name in names
        for target in TARGETS
        for type_name in TYPES
    }
    codes, errors = {}, {}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        running = {pool.submit(compiled, *what): key for key, what in wanted.items()}
        for future in tqdm(as_completed(running), "compiling", len(running), unit="kernel", disable=None):
            try:
                codes[running[future]] = future.result()
            except RuntimeError as error:
                errors[running[future]] = f"{running[future]}: {error}"
    return {key: codes[key] for key in wanted if key in codes}, [errors[key] for key in wanted if key in errors]


# ---- the table -------------------------------------------------------------------------------------------------------


def stored():
    """Return the compilers and the codes from the file."""
    try:
        table = json.loads(PATH.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RuntimeError(f"{PATH} is missing; write it by: python -m benchmarks.cuda_code") from None
    return table["compilers"], {key: Code(**code) for key, code in table["kernels"].items()}


def write(versions, codes):
    """Write the table, for programs and for readers."""
    rows = ",\n".join(f'  "{key}": {json.dumps(code._asdict())}' for key, code in codes.items())
    files.write_text(PATH, f'{{\n "compilers": {json.dumps(versions)},\n "kernels": {{\n{rows}\n }}\n}}\n')
    files.write_text(PATH.with_suffix(".md"), markdown(versions, codes))


def markdown(versions, codes):
    """Return the table for readers: a row for each kernel and type."""
    lines = [
        "# What the compilers make of the CUDA kernels",
        "",
        "Written by `python -m benchmarks.cuda_code`, which explains the columns; no GPU was needed. Compilers: "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
        "",
        "Registers of a thread, bytes of shared memory of a block, occupancy: threads at a time, as a share of those",
        "that a multiprocessor can hold. No kernel spills registers"
        + (", and none has arrays in local memory." if not any(code.local for code in codes.values()) else "."),
        "",
    ]
    head, rule = "| kernel | threads | type |", "| --- | ---: | --- |"
    for target in TARGETS:
        head += f" sm_{target[0]}{target[1]}: registers | shared | local | occupancy |"
        rule += " ---: | ---: | ---: | ---: |"
    lines += [head, rule]
    for name in dict.fromkeys(key.split()[0] for key in codes):
        for type_name in TYPES:
            of_targets = [codes.get(f"{name} sm_{target[0]}{target[1]} {type_name}") for target in TARGETS]
            if None in of_targets:
                continue
            row = f"| {name} | {of_targets[0].threads} | {type_name} |"
            for code in of_targets:
                row += f" {code.registers} | {code.shared or ''} | {code.local or ''} | {code.occupancy:.0%} |"
            lines.append(row)
    return "\n".join(lines) + "\n"


def faults(codes):
    """Return what no kernel may do, a line for each that does."""
    lines = []
    for key, code in codes.items():
        if code.spills:
            lines.append(f"{key}: spills {code.spills} bytes")
        if code.local and key.startswith(NO_LOCAL_MEMORY):
            lines.append(f"{key}: keeps {code.local} bytes in local memory")
        if not code.occupancy:
            lines.append(f"{key}: a block of {code.threads} threads does not fit into a multiprocessor")
    return lines


def drift(old, new, margin):
    """Return what differs between two tables, a line each.

    Parameters
    ----------
    old, new : dict of str to Code
        The stored table, and the one of now.
    margin : int
        Registers that do not count as a difference; local memory may then come and go with them.
    """
    lines = [f"{key}: is not in the table" for key in new if key not in old]
    for key, was in old.items():
        if key not in new:
            lines.append(f"{key}: is in the table only")
            continue
        now = new[key]
        for name in ("threads", "registers", "shared", "local"):
            a, b = getattr(was, name), getattr(now, name)
            if abs(a - b) > (margin if name == "registers" else 0):
                lines.append(f"{key}: {name} {a} -> {b}")
    return lines


# ---- command ---------------------------------------------------------------------------------------------------------


def main(arguments=None):
    """Write the table, or check it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cuda_code", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--check", action="store_true", help="compare with the stored table instead of writing it")
    parser.add_argument("--only", metavar="TEXT", help="show the kernels whose names hold TEXT, and write nothing")
    parser.add_argument("--jobs", type=whole_number(1), metavar="N", help="processes that compile (default: all cores)")
    args = parser.parse_args(arguments)
    try:
        return _run(args)
    except RuntimeError as error:
        print(f"benchmarks.cuda_code: error: {error}", file=sys.stderr)
        return 2


def _run(args):
    versions = compilers()
    old_versions, old = stored() if args.check else ({}, {})
    chosen = [name for name in all_kernels() if (args.only or "") in name]
    if not chosen:
        raise RuntimeError(f"no kernel's name holds {args.only!r}")
    codes, wrong = compile_all(chosen, args.jobs)
    wrong += faults(codes)
    if args.check:
        known = {key: code for key, code in old.items() if key.split()[0] in chosen or not args.only}
        wrong += drift(known, codes, 0 if versions == old_versions else MARGIN)
        for name in versions.keys() | old_versions.keys():
            if versions.get(name) != old_versions.get(name):
                print(f"{name} {old_versions.get(name)} -> {versions.get(name)}: registers may differ by {MARGIN}")
    elif args.only:
        print(markdown(versions, codes))
    if wrong:
        print("\n".join(wrong))
        return 1
    if not args.check and not args.only:
        write(versions, codes)
        print(f"{PATH}: {len(chosen)} kernels")
    elif args.check:
        print(f"{len(chosen)} kernels, as in {PATH.name}; no spills")
    return 0


if __name__ == "__main__":
    sys.exit(main())
