#include "coordinator/grpc_retry_delay.h"

#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "grpcpp/support/status.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

const absl::Status kFull = absl::ResourceExhaustedError("full");

TEST(RetryDelay, TravelsAsRetryInfo) {
  const grpc::Status status = ToGrpcStatus(kFull, absl::Milliseconds(3250));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(status.error_message(), "full");
  // google.rpc.Status{8, "full", Any{type, RetryInfo{Duration{3, 250000000}}}},
  // written out by the rules of the encoding.
  const std::string retry_info("\x0a\x07\x08\x03\x10\x80\xe5\x9a\x77", 9);
  const std::string type = "type.googleapis.com/google.rpc.RetryInfo";
  const std::string any =
      std::string("\x0a\x28") + type + "\x12\x09" + retry_info;
  const std::string expected = std::string(
                                   "\x08\x08\x12\x04"
                                   "full"
                                   "\x1a\x35") +
                               any;
  EXPECT_EQ(status.error_details(), expected);
}

TEST(RetryDelay, StaysBetweenASecondAndAMinute) {
  EXPECT_EQ(ToGrpcStatus(kFull, absl::ZeroDuration()).error_details(),
            ToGrpcStatus(kFull, absl::Seconds(1)).error_details());
  EXPECT_EQ(ToGrpcStatus(kFull, absl::InfiniteDuration()).error_details(),
            ToGrpcStatus(kFull, absl::Minutes(1)).error_details());
}

TEST(RetryDelay, IsNotThereWhenNotKnownOrNeeded) {
  EXPECT_EQ(ToGrpcStatus(kFull, std::nullopt).error_details(), "");
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus(), absl::Seconds(5)).ok());
}

}  // namespace
}  // namespace tern
