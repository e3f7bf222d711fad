#include "tests/cuda/nccl_version.h"

#include "gtest/gtest.h"

namespace tern {
namespace {

// A header of one NCCL with the library of another would fail far from here.
TEST(Nccl, LibraryIsTheHeaders) {
  EXPECT_EQ(LinkedNcclVersion(), CompiledNcclVersion());
}

}  // namespace
}  // namespace tern
