// The build's own CUDA rule: what nvcc compiles links into a C++ program and,
// where a device is at hand, runs.

#include "tests/cuda/toolkit.h"

#include <vector>

#include "gtest/gtest.h"

namespace tern {
namespace {

TEST(CudaToolkit, CompiledKernelRuns) {
  if (CudaDeviceCount() == 0) GTEST_SKIP() << "no CUDA device";
  std::vector<float> x(1000, 1.0f);
  ASSERT_TRUE(AddOnDevice(x.data(), 1000, 2.0f));
  EXPECT_EQ(x, std::vector<float>(1000, 3.0f));
}

}  // namespace
}  // namespace tern
