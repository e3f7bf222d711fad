#include "coordinator/leader_lease.h"

#include <stdlib.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

class LeaderLeaseTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = absl::StrCat(::testing::TempDir(), "/lease-XXXXXX");
    ASSERT_NE(mkdtemp(&folder_[0]), nullptr);
    folder_ += "/made";
  }

  std::unique_ptr<LeaderLease> Open(const std::string& name) {
    auto lease = OpenFileLease(folder_, name);
    EXPECT_TRUE(lease.ok()) << lease.status();
    return *std::move(lease);
  }

  std::string folder_;
};

TEST_F(LeaderLeaseTest, OneHoldsItAndTheNextGetsItWhenThatOneIsGone) {
  auto first = Open("a long name of the first one");
  auto second = Open("second");
  EXPECT_TRUE(*first->TryAcquire());
  EXPECT_TRUE(*first->TryAcquire());  // It has it.
  EXPECT_FALSE(*second->TryAcquire());
  EXPECT_EQ(second->Holder(), "a long name of the first one");
  first.reset();
  EXPECT_TRUE(*second->TryAcquire());
  EXPECT_EQ(Open("third")->Holder(), "second");
}

TEST_F(LeaderLeaseTest, SaysWhereItCannotBe) {
  const absl::Status status = OpenFileLease("/proc/none", "x").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(std::string(status.message()).find("--journal_dir"),
            std::string::npos);
}

}  // namespace
}  // namespace tern
