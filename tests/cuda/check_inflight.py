#!/usr/bin/env python3
"""Registers of warpgroup products (HGMMA) in flight that other instructions touch, in the kernels' machine code.

    check_inflight.py CUOBJDUMP FILE...

The tensor cores read fragments of A and write sums while the threads go on; neither ptxas nor the hardware stops an instruction that
overwrites the one or uses the other before WARPGROUP.DEPBAR. Walks each kernel in the order of addresses, once more around each
loop. Where ptxas sees such a fault itself, it waits for each product instead and says so in a remark that is no warning: that is a
failure too. Prints a line for each kernel with products.
"""
import pathlib
import re
import subprocess
import sys

INSTRUCTION = re.compile(r"^\s+/\*([0-9a-f]{4,})\*/\s+(.*?) ;", re.M)
FUNCTION = re.compile(r"^\t\tFunction : (\w+)$", re.M)
PREDICATE = re.compile(r"^@!?U?P\w+ ")
# These write no register that their first operand names.
NO_RESULT = ("ST", "LDGSTS", "BAR", "R2UR", "BRA", "RED")
MIN_LOOP = 0x300  # bytes: shorter ones spin, and hold no product


def registers_in(operand):
    return {int(n) for n in re.findall(r"\bR(\d+)\b", operand)}


def width_of(operation):
    """How many registers a result takes."""
    if ".128" in operation or operation.startswith("LDSM") and operation.endswith(".4"):
        return 4
    if ".64" in operation or "WIDE" in operation or operation.startswith("CS2R"):
        return 2
    return 1


class Product:
    """One HGMMA: the registers of its sums and of its fragments of A, where those are in registers."""

    def __init__(self, at, body):
        self.at = at
        operands = body.split(",")
        first = min(registers_in(operands[0]))
        self.sums = set(range(first, first + int(re.search(r"64x(\d+)x16", body)[1]) // 2))
        match = re.match(r" R(\d+)", operands[1])
        self.fragments = set(range(int(match[1]), int(match[1]) + 4)) if match else set()


def touched(body):
    """(registers written, registers read)."""
    operation, _, rest = body.partition(" ")
    operands = rest.split(",")
    written, read = set(), set()
    has_result = not operation.startswith(NO_RESULT) and not operands[0].strip().startswith("[")
    if has_result and registers_in(operands[0]):
        first = min(registers_in(operands[0]))
        written = set(range(first, first + width_of(operation)))
    for operand in operands[has_result:]:
        read |= registers_in(operand)
    return written, read


def walk(instructions):
    """The instructions of a kernel, [(address, text)], in order, and once more from the target of each branch back."""
    index = {address: i for i, (address, _) in enumerate(instructions)}
    taken, i = set(), 0
    while i < len(instructions):
        address, text = instructions[i]
        body = PREDICATE.sub("", text)
        yield address, body
        match = re.match(r"BRA\S* .*?0x([0-9a-f]+)", body)
        target = int(match[1], 16) if match else None
        if target in index and address not in taken and address - target > MIN_LOOP:
            taken.add(address)
            i = index[target]
        else:
            i += 1


def faults_of(instructions):
    """(number of products, what touches their registers while they are in flight)."""
    faults, products, waits = [], set(), set()
    groups, open_group = [], []
    for address, body in walk(instructions):
        operation = body.split()[0]
        if operation.startswith("HGMMA"):
            open_group.append(Product(address, body))
            products.add(address)
            if "gsb0" in body:  # ends a group
                groups.append(open_group)
                open_group = []
        elif operation.startswith("WARPGROUP.DEPBAR"):
            waits.add(address)
            pending = int(body.split(",")[1].strip(), 16)
            groups = groups[len(groups) - pending:] if 0 < pending < len(groups) else groups if pending else []
        elif groups or open_group:
            written, read = touched(body)
            for product in [p for group in groups + [open_group] for p in group]:
                if written & product.fragments:
                    faults.append(f"{address:#x} {body}: writes fragments of the product at {product.at:#x}")
                if (written | read) & product.sums:
                    faults.append(f"{address:#x} {body}: touches sums of the product at {product.at:#x}")
    if len(products) > 1 and len(waits) >= len(products):
        faults.append("each product is waited for by itself")
    return len(products), sorted(set(faults))


def kernels_of(sass):
    """Yields (name, instructions) of cuobjdump -sass."""
    starts = list(FUNCTION.finditer(sass))
    for match, following in zip(starts, [*starts[1:], None]):
        text = sass[match.end():following.start() if following else len(sass)]
        yield match[1], [(int(address, 16), body) for address, body in INSTRUCTION.findall(text)]


def main():
    num_kernels, failed = 0, False
    for file in sys.argv[2:]:
        done = subprocess.run([sys.argv[1], "-sass", file], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stdout[-2000:] + done.stderr)
        for name, instructions in kernels_of(done.stdout):
            num_products, faults = faults_of(instructions)
            if num_products == 0:
                continue
            num_kernels += 1
            failed |= bool(faults)
            print(f"{pathlib.Path(file).name}: {num_products} products, {len(faults)} faults: {name}")
            for fault in faults[:10]:
                print("  FAILED", fault)
    if num_kernels == 0:
        sys.exit("no kernel has products")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
