#!/usr/bin/env python3
"""Checks that innermost loops keep their vectors in registers.

usage: inner_loops.py OBJDUMP FILE FUNCTION MNEMONIC COUNT

Disassembles FILE (an object, archive or program, not stripped) and looks at the
innermost loops of all functions whose demangled name matches the regular
expression FUNCTION. There must be at least COUNT whose instructions include a
mnemonic that MNEMONIC matches, and none of those may move a vector register
from or to the stack: a compiler that runs out of registers halves the speed of
a kernel and fails no other test. Knows x86-64 (AT&T syntax) and 64-bit ARM.
"""

import re
import subprocess
import sys

FUNCTION_START = re.compile(r"[0-9a-f]+ <(.*)>:$")
INSTRUCTION = re.compile(r" *([0-9a-f]+):\t(\S+)\s*(.*)")
BRANCH = re.compile(r"j\w+|b|b\.\w+|cbn?z|tbn?z")
# What the next instruction does not follow.
LEAVE = re.compile(r"jmpq?|b|br|ret\w*|ud2|brk")
TARGET = re.compile(r"\b([0-9a-f]+) <")
STACK = re.compile(r"\[sp\b|\(%rsp")
VECTOR = re.compile(r"%[xyz]mm\d|\bq\d+\b")


def disassemble(objdump, file):
    """Pairs of a function's name and its [(address, mnemonic, operands)]."""
    text = subprocess.run(
        [objdump, "--disassemble", "--demangle", "--no-show-raw-insn", file],
        check=True, stdout=subprocess.PIPE, text=True).stdout
    functions = []
    for line in text.splitlines():
        start = FUNCTION_START.match(line)
        if start:
            functions.append((start.group(1), []))
            continue
        instruction = INSTRUCTION.match(line)
        if instruction and functions:
            address, mnemonic, operands = instruction.groups()
            functions[-1][1].append((int(address, 16), mnemonic, operands))
    return functions


def loops_of(instructions):
    """{first instruction: all instructions} of the loops, by index."""
    index = {address: i for i, (address, _, _) in enumerate(instructions)}
    before = [set() for _ in instructions]  # what may run just before
    back_edges = []
    for i, (_, mnemonic, operands) in enumerate(instructions):
        if i + 1 < len(instructions) and not LEAVE.fullmatch(mnemonic):
            before[i + 1].add(i)
        target = BRANCH.fullmatch(mnemonic) and TARGET.search(operands)
        target = index.get(int(target.group(1), 16)) if target else None
        if target is not None:
            before[target].add(i)
            if target <= i:
                back_edges.append((i, target))
    loops = {}
    for last, first in back_edges:
        # All that leads to the last instruction, back to the first one. When
        # that is where the function begins, the branch goes back to shared
        # code, not to a loop.
        body = {first}
        left = [last]
        while left:
            i = left.pop()
            if i not in body:
                body.add(i)
                left += before[i]
        if first == 0 or 0 not in body:
            loops.setdefault(first, set()).update(body)
    return loops


def innermost_loops(instructions):
    loops = loops_of(instructions)
    for first, body in sorted(loops.items()):
        if not any(other in body for other in loops if other != first):
            yield [instructions[i] for i in sorted(body)]


def main(objdump, file, function, mnemonic, count):
    found = 0
    spills = []
    for name, instructions in disassemble(objdump, file):
        if not re.search(function, name):
            continue
        for loop in innermost_loops(instructions):
            if not any(re.fullmatch(mnemonic, i[1]) for i in loop):
                continue
            found += 1
            spills += [f"{name}: {address:x}: {op} {operands}"
                       for address, op, operands in loop
                       if STACK.search(operands) and VECTOR.search(operands)]
    for spill in spills:
        print("vector on the stack in an innermost loop:", spill)
    print(f"{found} innermost loops of /{function}/ with /{mnemonic}/,",
          f"at least {count} expected; {len(spills)} vectors on the stack")
    return 1 if spills or found < int(count) else 0


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
