// What becomes of a linear's products, in vectors, for the loops that Highway builds for each target.
#if defined(SESSA_KERNELS_CPU_ACTIVATIONS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SESSA_KERNELS_CPU_ACTIVATIONS_INL_H_
#undef SESSA_KERNELS_CPU_ACTIVATIONS_INL_H_
#else
#define SESSA_KERNELS_CPU_ACTIVATIONS_INL_H_
#endif

#include <algorithm>

#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"
#include "kernels/cpu/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace sessa::cpu::HWY_NAMESPACE {

// e^x for x <= 0. Below -104 it is 0 in any case; Exp's conversion to an integer is not defined for what is
// far below.
HWY_INLINE VF ExpOfNegative(VF x) { return hn::Exp(kF, hn::Max(x, hn::Set(kF, -104.0f))); }

// 2^x for x <= 0; 0 from -127 on. 1.5 * 2^23 rounds x to an integer, which becomes the exponent. The
// polynomial's coefficients, but for the constant 1, are minimax over [-1/2, 1/2].
template <size_t kDegree>
HWY_INLINE VF Exp2OfNegative(VF x, const float (&coefficients)[kDegree]) {
  x = hn::Max(x, hn::Set(kF, -127.0f));
  const VF round = hn::Set(kF, 0x1.8p23f), shifted = x + round, f = x - (shifted - round);
  VF p = hn::Set(kF, coefficients[0]);
  SESSA_UNROLL
  for (size_t i = 1; i < kDegree; ++i) p = hn::MulAdd(p, f, hn::Set(kF, coefficients[i]));
  p = hn::MulAdd(p, f, hn::Set(kF, 1.0f));
  return hn::BitCast(kF, hn::BitCast(kI32, p) + hn::ShiftLeft<23>(hn::BitCast(kI32, shifted)));
}
// To 1e-7.
HWY_INLINE VF Exp2OfNegative(VF x) {
  return Exp2OfNegative(x, {0x1.5bba14p-10f, 0x1.3cea88p-7f, 0x1.c6b752p-5f, 0x1.ebf9bcp-3f, 0x1.62e42ap-1f});
}
// To 1.1e-4. AVX-512 splits x and scales in an instruction each, six in all rather than nine; its polynomial
// is of [0, 1]. A denormal would take 200 cycles, and is 0.
HWY_INLINE VF RoughExp2OfNegative(VF x) {
#if HWY_TARGET == HWY_AVX3
  const VF f{_mm512_reduce_ps(x.raw, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC)};  // x - floor(x)
  VF p = hn::MulAdd(hn::Set(kF, 0x1.3baaaep-4f), f, hn::Set(kF, 0x1.d23786p-3f));
  p = hn::MulAdd(p, f, hn::Set(kF, 0x1.63e65ap-1f));
  p = hn::MulAdd(p, f, hn::Set(kF, 1.0f));
  const auto normal = x >= hn::Set(kF, -126.0f);
  return VF{_mm512_maskz_scalef_ps(normal.raw, p.raw, x.raw)};  // p * 2^floor(x)
#else
  return Exp2OfNegative(x, {0x1.c2a218p-5f, 0x1.f00c4ep-3f, 0x1.62f5fap-1f});
#endif
}

// 1 / x for x of about 1 to 1000, or NaN. (A division takes as long as 16 multiplications.)
HWY_INLINE VF Reciprocal(VF x) {
#if HWY_TARGET == HWY_AVX3
  const VF y = hn::ApproximateReciprocal(x);  // to 2^-14, and after a step of Newton's to 2^-23
  return hn::MulAdd(y, hn::NegMulAdd(x, y, hn::Set(kF, 1.0f)), y);
#else
  return hn::Set(kF, 1.0f) / x;
#endif
}

// x / (1 + e^-x), whose exponential cannot overflow. NaN stays NaN.
HWY_INLINE VF Silu(VF x) {
  const VF one = hn::Set(kF, 1.0f);
  const VF e = Exp2OfNegative(hn::Abs(x) * hn::Set(kF, -1.44269504f));  // log2 e
  return x * hn::IfThenElse(x < hn::Zero(kF), e, one) * Reciprocal(one + e);
}

// x (1 + erf(x / sqrt 2)) / 2, erf to 7e-7 as a quotient of polynomials: minimax over [-3.8, 3.8], on whose
// ends its size is 1 and a little, so that nothing is left of what is far below 0.
HWY_INLINE VF Gelu(VF x) {
  constexpr float kEnd = 3.8f;
  const VF one = hn::Set(kF, 1.0f), half = x * hn::Set(kF, 0.5f);
  const VF z = hn::Min(hn::Max(x * hn::Set(kF, 0.70710678f), hn::Set(kF, -kEnd)), hn::Set(kF, kEnd)),
           t = z * z;
  VF p = hn::Set(kF, 0x1.3bc4dcp-12f), q = hn::Set(kF, 0x1.2a5d9cp-16f);
  for (float c : {0x1.0fbe2ep-7f, 0x1.0fb4b2p-4f, 0x1.3a9f12p-2f, 0x1.20dd5cp+0f})
    p = hn::MulAdd(p, t, hn::Set(kF, c));
  for (float c : {0x1.13b6bcp-9f, 0x1.8a51dcp-6f, 0x1.492732p-3f, 0x1.36121ep-1f, 1.0f})
    q = hn::MulAdd(q, t, hn::Set(kF, c));
  return half * hn::Max(hn::MulAdd(z * p, Reciprocal(q), one), hn::Zero(kF));
}

// y [rows][ldy] = f(z [rows][ldz], y) for the first `columns`; both may be the same.
template <class F>
HWY_INLINE void ForVectors(const float* z, int64_t ldz, int rows, int columns, float* y, int64_t ldy, F f) {
  constexpr int kWidth = static_cast<int>(kLanes);
  const int tail = columns % kWidth;
  for (int r = 0; r < rows; ++r, z += ldz, y += ldy) {
    int j = 0;
    for (; j + kWidth <= columns; j += kWidth)
      hn::StoreU(f(hn::LoadU(kF, z + j), hn::LoadU(kF, y + j)), kF, y + j);
    if (tail == 0) continue;
    float x[kWidth] = {}, to[kWidth] = {};
    std::copy_n(z + j, tail, x);
    std::copy_n(y + j, tail, to);
    hn::StoreU(f(hn::LoadU(kF, x), hn::LoadU(kF, to)), kF, to);
    std::copy_n(to, tail, y + j);
  }
}

// y becomes what the epilogue makes of the products z and of what y holds; kSiluGate: the second product.
HWY_INLINE void Apply(Epilogue epilogue, const float* z, int64_t ldz, int rows, int columns, float* y,
                      int64_t ldy) {
  switch (epilogue) {
    case Epilogue::kNone:
      return ForVectors(z, ldz, rows, columns, y, ldy, [](VF a, VF) HWY_ATTR { return a; });
    case Epilogue::kGelu:
      return ForVectors(z, ldz, rows, columns, y, ldy, [](VF a, VF) HWY_ATTR { return Gelu(a); });
    case Epilogue::kAdd:
      return ForVectors(z, ldz, rows, columns, y, ldy, [](VF a, VF b) HWY_ATTR { return b + a; });
    case Epilogue::kMultiply:
      return ForVectors(z, ldz, rows, columns, y, ldy, [](VF a, VF b) HWY_ATTR { return a * b; });
    case Epilogue::kSiluGate:
      return ForVectors(z, ldz, rows, columns, y, ldy, [](VF a, VF b) HWY_ATTR { return Silu(a) * b; });
  }
}

}  // namespace sessa::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
