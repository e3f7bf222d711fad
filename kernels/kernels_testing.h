#ifndef KERNELS_KERNELS_TESTING_H_
#define KERNELS_KERNELS_TESTING_H_

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/isa.h"
#include "kernels/kernels.h"

namespace tern::testing {

inline constexpr float kInf = std::numeric_limits<float>::infinity();
inline constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
inline constexpr float kSmallest = std::numeric_limits<float>::denorm_min();

// n elements, 64-byte aligned and not one byte more, so that the address
// sanitizer sees every read beyond the end.
template <typename T>
class AlignedArray {
 public:
  explicit AlignedArray(size_t n, T fill = T()) : n_(n) {
    void* data = nullptr;
    if (posix_memalign(&data, 64, n * sizeof(T)) != 0) abort();
    data_.reset(static_cast<T*>(data));
    for (size_t i = 0; i < n; ++i) data_[i] = fill;
  }
  T* data() { return data_.get(); }
  const T* data() const { return data_.get(); }
  size_t size() const { return n_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  struct Free {
    void operator()(T* p) const { free(p); }
  };
  size_t n_;
  std::unique_ptr<T[], Free> data_;
};

// Random floats of an ordinary scale; every tenth is zero, tiny or large.
inline std::vector<float> RandomFloats(size_t n, std::mt19937* rng) {
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) {
    v = normal(*rng);
    switch ((*rng)() % 40) {
      case 0:
        v = 0.0f;
        break;
      case 1:
        v = -0.0f;
        break;
      case 2:
        v *= 1e-3f;
        break;
      case 3:
        v *= 30.0f;
        break;
    }
  }
  return x;
}

// Replaces some elements by what goes wrong first: zeros of both signs,
// subnormals, the largest floats, infinities and (if asked for) NaN.
inline void AddExtremes(bool with_nan, std::mt19937* rng,
                        std::vector<float>* x) {
  const float extremes[] = {0.0f,   -0.0f,    kSmallest, -kSmallest,
                            1e-40f, -1e-40f,  1e-20f,    3.4028235e38f,
                            -3e38f, 65504.0f, 65519.0f,  65520.0f,
                            -1e5f,  kInf,     -kInf,     kNan};
  const size_t n = std::size(extremes) - (with_nan ? 0 : 3);
  for (size_t i = 0; i < x->size(); i += 1 + (*rng)() % 7) {
    (*x)[i] = extremes[(*rng)() % n];
  }
}

inline bool SameBits(float a, float b) {
  if (std::isnan(a) || std::isnan(b)) return std::isnan(a) && std::isnan(b);
  return std::memcmp(&a, &b, sizeof(a)) == 0;
}

// Equality bit for bit; any NaN equals any other.
template <typename T>
::testing::AssertionResult SameArray(const T* expected, const T* actual,
                                     size_t n) {
  for (size_t i = 0; i < n; ++i) {
    bool same;
    if constexpr (std::is_same_v<T, float>) {
      same = SameBits(expected[i], actual[i]);
    } else {
      same = expected[i] == actual[i];
    }
    if (same) continue;
    auto failure = ::testing::AssertionFailure();
    failure << "index " << i << " of " << n << ": expected ";
    if constexpr (std::is_same_v<T, float>) {
      char text[96];
      snprintf(text, sizeof(text), "%a (%.9g), actual %a (%.9g)",
               static_cast<double>(expected[i]),
               static_cast<double>(expected[i]), static_cast<double>(actual[i]),
               static_cast<double>(actual[i]));
      failure << text;
    } else {
      failure << +expected[i] << ", actual " << +actual[i];
    }
    return failure;
  }
  return ::testing::AssertionSuccess();
}

template <typename Array>
::testing::AssertionResult SameArrays(const Array& expected,
                                      const Array& actual) {
  if (expected.size() != actual.size()) {
    return ::testing::AssertionFailure() << "sizes differ";
  }
  return SameArray(expected.data(), actual.data(), expected.size());
}

// A test of every instruction set of this machine, the oracle included.
class EveryIsa : public ::testing::TestWithParam<Isa> {
 protected:
  const Kernels& kernels() const { return KernelsFor(GetParam()); }
  const Kernels& ref() const { return KernelsFor(Isa::kRef); }
};

inline std::string IsaParamName(const ::testing::TestParamInfo<Isa>& info) {
  return std::string(IsaName(info.param));
}

}  // namespace tern::testing

// Instantiates a suite of EveryIsa.
#define TERN_EVERY_ISA(suite)                                            \
  INSTANTIATE_TEST_SUITE_P(Isas, suite,                                  \
                           ::testing::ValuesIn(::tern::SupportedIsas()), \
                           ::tern::testing::IsaParamName)

#endif  // KERNELS_KERNELS_TESTING_H_
