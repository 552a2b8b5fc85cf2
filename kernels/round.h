// Whole numbers of units, for x >= 0.
#pragma once

#include <type_traits>

namespace sessa {

template <class T>
constexpr T CeilDiv(T x, std::type_identity_t<T> unit) {
  return (x + unit - 1) / unit;
}
template <class T>
constexpr T RoundUp(T x, std::type_identity_t<T> unit) {
  return CeilDiv(x, unit) * unit;
}

}  // namespace sessa
