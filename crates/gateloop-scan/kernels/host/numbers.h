// Conversions of numbers, as the hardware rounds: to the nearest, ties to even; a NaN stays one.
#pragma once
#include "machine.h"
#include <math.h>

namespace host {

template <class To, class From>
To bit_cast(From v) {
  static_assert(sizeof(To) == sizeof(From), "");
  To to;
  memcpy(&to, &v, sizeof to);
  return to;
}

inline u16 to_bf16(float v) {
  const u32 bits = bit_cast<u32>(v);
  if (v != v) return 0x7FFF;
  return u16((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

inline float from_f16(u16 bits) {
  const u32 exponent = bits >> 10 & 31, fraction = bits & 1023;
  float size;
  if (exponent == 31) {
    size = fraction ? NAN : INFINITY;
  } else {
    size = exponent ? ldexpf(float(1024 + fraction), int(exponent) - 25) : ldexpf(float(fraction), -24);
  }
  return bits >> 15 ? -size : size;
}
inline u16 to_f16(float v) {
  const u16 sign = u16(bit_cast<u32>(v) >> 31 << 15);
  if (v != v) return 0x7FFF;
  const float size = fabsf(v);
  if (size >= 65520.f) return u16(sign | 0x7C00);
  if (size == 0.f) return sign;
  int exponent;
  frexpf(size, &exponent); // size = [0.5, 1) 2^exponent
  const int unit = exponent - 11 < -24 ? -24 : exponent - 11; // of the last bit
  const u32 units = u32(nearbyintf(ldexpf(size, -unit)));
  // A carry from the fraction goes on into the exponent, as it should.
  return u16(sign | (u32(unit + 24) * 1024 + units));
}

} // namespace host
