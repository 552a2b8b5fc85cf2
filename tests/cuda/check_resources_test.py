"""check_resources.py on what the two tools print, and on kernels that break its rules."""
import unittest

import check_resources

PTXAS = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN5sessa4cuda1a11SolveKernelENS0_4ArgsE' for 'sm_90a'
ptxas info    : Function properties for _ZN5sessa4cuda1a11SolveKernelENS0_4ArgsE
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 72 registers, used 1 barriers, 19712 bytes smem
ptxas info    : Compiling entry function '_ZN5sessa4cuda1a10FoldKernelEv' for 'sm_90a'
ptxas info    : Function properties for _ZN5sessa4cuda1a10FoldKernelEv
    48 bytes stack frame, 40 bytes spill stores, 36 bytes spill loads
ptxas info    : Used 64 registers, used 1 barriers
"""
CUOBJDUMP = """
Fatbin elf code:
================
arch = sm_90a

Resource usage:
 Common:
  GLOBAL:0
 Function _ZN5sessa4cuda1a11SolveKernelENS0_4ArgsE:
  REG:72 STACK:0 SHARED:19712 LOCAL:0 CONSTANT[0]:648 TEXTURE:0 SURFACE:0 SAMPLER:0
 Function _ZN5sessa4cuda1a10FoldKernelEv:
  REG:64 STACK:48 SHARED:0 LOCAL:0 CONSTANT[0]:648 TEXTURE:0 SURFACE:0 SAMPLER:0
"""


class CheckResourcesTest(unittest.TestCase):
    def test_both_tools_say_the_same(self):
        expected = [("_ZN5sessa4cuda1a11SolveKernelENS0_4ArgsE", 72, 0), ("_ZN5sessa4cuda1a10FoldKernelEv", 64, 48)]
        self.assertEqual(check_resources.kernels_of_ptxas(PTXAS), expected)
        self.assertEqual(check_resources.kernels_of_cuobjdump(CUOBJDUMP), expected)

    def test_failures(self):
        check_resources.LIMITS = [(r"SolveKernel", 72), (r"FoldKernel", 64)]
        check_resources.LOCAL_LIMITS = [(r"angles", 40)]
        solve, fold = ("1SolveKernel", 72, 0), ("1FoldKernel", 64, 0)
        self.assertEqual(check_resources.failures_of([solve, fold, ("other", 255, 0), ("angles", 8, 40)]), [])
        for kernels, expected in [([("1SolveKernel", 73, 0), fold], "73 registers"), ([("1SolveKernel", 72, 8), fold], "8 bytes"),
                                  ([solve, fold, ("other", 8, 8)], "8 bytes"), ([solve, fold, ("angles", 8, 41)], "41 bytes"), ([solve], "no kernel matches FoldKernel")]:
            found = check_resources.failures_of(kernels)
            self.assertEqual(len(found), 1)
            self.assertIn(expected, found[0])


if __name__ == "__main__":
    unittest.main()
