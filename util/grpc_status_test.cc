#include "util/grpc_status.h"

#include "absl/status/status.h"
#include "grpcpp/support/status.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

TEST(GrpcStatus, KeepsEveryCodeAndMessageBothWays) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status before(static_cast<absl::StatusCode>(code), "why");
    const grpc::Status there = ToGrpcStatus(before);
    EXPECT_EQ(there.error_code(), code);
    EXPECT_EQ(there.error_message(), "why");
    EXPECT_EQ(FromGrpcStatus(there), before);
  }
}

TEST(GrpcStatus, OkStaysOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
}

TEST(GrpcStatus, CodesThatDoNotExistAreUnknown) {
  const grpc::Status strange(static_cast<grpc::StatusCode>(20), "why");
  EXPECT_EQ(FromGrpcStatus(strange), absl::UnknownError("why"));
  const absl::Status odd(static_cast<absl::StatusCode>(99), "why");
  EXPECT_EQ(ToGrpcStatus(odd).error_code(), grpc::StatusCode::UNKNOWN);
}

}  // namespace
}  // namespace tern
