// Exponentials in vectors, for the loops that Highway builds for each target.
#if defined(SESSA_KERNELS_CPU_ACTIVATIONS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SESSA_KERNELS_CPU_ACTIVATIONS_INL_H_
#undef SESSA_KERNELS_CPU_ACTIVATIONS_INL_H_
#else
#define SESSA_KERNELS_CPU_ACTIVATIONS_INL_H_
#endif

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

// e^x for x <= 0. Below -104 it is 0 in any case; Exp's conversion to an integer is not defined for what is
// far below.
HWY_INLINE VF ExpOfNegative(VF x) { return hn::Exp(kF, hn::Max(x, hn::Set(kF, -104.0f))); }

// x / (1 + e^-x), whose exponential cannot overflow. NaN stays NaN.
HWY_INLINE VF Silu(VF x) {
  const auto one = hn::Set(kF, 1.0f);
  const auto e = ExpOfNegative(hn::Neg(hn::Abs(x)));
  return x * hn::IfThenElse(x < hn::Zero(kF), e, one) / (one + e);
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
