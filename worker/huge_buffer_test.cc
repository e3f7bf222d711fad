#include "worker/huge_buffer.h"

#include <linux/mempolicy.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

constexpr size_t kBytes = size_t{5} << 20;

// Policy of the page at `address`, or -1.
int PolicyAt(const void* address) {
  int policy = -1;
  return syscall(SYS_get_mempolicy, &policy, nullptr, 0, address,
                 MPOL_F_ADDR) == 0
             ? policy
             : -1;
}

TEST(HugeBuffer, PagesOfAllOfItTakeTurns) {
  auto buffer = HugeBuffer::Allocate(kBytes, "test");
  ASSERT_TRUE(buffer.ok());
  const absl::Status interleaved = buffer->Interleave({0});
  if (absl::IsPermissionDenied(interleaved)) {
    GTEST_SKIP() << "this process may not place memory";
  }
  ASSERT_TRUE(interleaved.ok()) << interleaved;
  EXPECT_EQ(PolicyAt(buffer->data()), MPOL_INTERLEAVE);
  EXPECT_EQ(PolicyAt(buffer->data() + kBytes - 1), MPOL_INTERLEAVE);
  buffer->data()[kBytes - 1] = 1;
  EXPECT_EQ(buffer->data()[0], 0);
}

TEST(HugeBuffer, NodesThatAreNotThereAreRefused) {
  auto buffer = HugeBuffer::Allocate(kBytes, "test");
  ASSERT_TRUE(buffer.ok());
  for (const int node : {-1, 1023, 100000}) {
    const absl::Status status = buffer->Interleave({node});
    EXPECT_TRUE(absl::IsInvalidArgument(status) ||
                absl::IsPermissionDenied(status))
        << status;
  }
  // And change nothing.
  buffer->data()[kBytes - 1] = 1;
}

TEST(HugeBuffer, NothingHasNothingToPlace) {
  auto buffer = HugeBuffer::Allocate(0, "test");
  ASSERT_TRUE(buffer.ok());
  EXPECT_TRUE(buffer->Interleave({0}).ok());
}

}  // namespace
}  // namespace tern
