#!/usr/bin/env python3
"""check_inflight.py on machine code as cuobjdump prints it."""
import unittest

import check_inflight


def kernel(*bodies):
    return [(16 * i, body) for i, body in enumerate(bodies)]


class InflightTest(unittest.TestCase):
    PRODUCT = "HGMMA.64x32x16.F32.BF16 R24, R4, gdesc[UR8], R24, gsb0"  # sums in R24 to R39, fragments in R4 to R7
    WAIT = "WARPGROUP.DEPBAR.LE gsb0, 0x0"

    def faults(self, *bodies):
        return check_inflight.faults_of(kernel(*bodies))

    def test_between_a_product_and_its_wait(self):
        for body, expected in [
            ("MOV R4, R100", "writes fragments"), ("LDSM.16.M88.4 R4, [R90]", "writes fragments"), ("LDS.64 R6, [R90]", "writes fragments"),
            ("@P0 MOV R7, R100", "writes fragments"), ("FADD R100, R39, R101", "touches sums"), ("STG.E [R90], R24", "touches sums"),
            ("CS2R R38, SRZ", "touches sums"), ("IMAD.WIDE R22, R90, R91, R92", None), ("MOV R8, R100", None), ("FADD R23, R40, R4", None),
            ("STS [R90], R4", None), ("BAR.SYNC 0x0", None), ("LDGSTS.E.128 [R90], [R4.64]", None),
        ]:
            with self.subTest(body=body):
                count, faults = self.faults(self.PRODUCT, body, self.WAIT, "EXIT")
                self.assertEqual(count, 1)
                self.assertEqual(len(faults), 0 if expected is None else 1, faults)
                if expected:
                    self.assertIn(expected, faults[0])
                self.assertEqual(self.faults(self.PRODUCT, self.WAIT, body), (1, []))

    def test_a_wait_leaves_the_last_groups(self):
        second = self.PRODUCT.replace("R24", "R56").replace("R4,", "R8,")
        wait_for_one = "WARPGROUP.DEPBAR.LE gsb0, 0x1"
        third = self.PRODUCT.replace("R24", "R88")
        self.assertEqual(self.faults(self.PRODUCT, second, wait_for_one, "FADD R24, R25, R26", third, self.WAIT)[1], [])
        self.assertEqual(len(self.faults(self.PRODUCT, second, wait_for_one, "FADD R56, R25, R26", third, self.WAIT)[1]), 1)
        self.assertEqual(len(self.faults(self.PRODUCT, second, "FADD R24, R25, R26", self.WAIT)[1]), 1)

    def test_products_without_an_end_of_their_group(self):
        open_product = self.PRODUCT.replace(", gsb0", "")
        self.assertEqual(len(self.faults(open_product, "MOV R5, R90", self.PRODUCT, self.WAIT)[1]), 1)

    def test_products_one_by_one(self):
        second = self.PRODUCT.replace("R24", "R56")
        self.assertEqual(self.faults(self.PRODUCT, self.WAIT, second, self.WAIT)[1], ["each product is waited for by itself"])
        self.assertEqual(self.faults(self.PRODUCT, second, self.WAIT)[1], [])

    def test_around_a_loop(self):
        filler = ["NOP"] * 60
        # The product at the loop's end is in flight when its beginning comes again.
        loop = ["MOV R4, R90", *filler, self.PRODUCT, "@P0 BRA 0x0", self.WAIT, "EXIT"]
        self.assertEqual(len(self.faults(*loop)[1]), 1)
        loop[0] = "MOV R9, R90"
        self.assertEqual(self.faults(*loop)[1], [])

    def test_a_listing(self):
        sass = ("\t\tFunction : _Z3one\n\t.headerflags\t@\"X\"\n"
                "        /*0000*/                   MOV R4, R5 ;              /* 0x1 */\n"
                "                                                             /* 0x2 */\n"
                "        /*0010*/              @!P0 EXIT ;                    /* 0x3 */\n"
                "\t\tFunction : _Z3two\n        /*0000*/                   NOP ;     /* 0x1 */\n")
        self.assertEqual(list(check_inflight.kernels_of(sass)), [("_Z3one", [(0, "MOV R4, R5"), (16, "@!P0 EXIT")]), ("_Z3two", [(0, "NOP")])])


if __name__ == "__main__":
    unittest.main()
