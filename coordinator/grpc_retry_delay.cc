#include "coordinator/grpc_retry_delay.h"

#include <algorithm>
#include <cstdint>

#include "proto/tern/v1/error.pb.h"
#include "util/grpc_status.h"

namespace tern {

grpc::Status ToGrpcStatus(const absl::Status& status,
                          std::optional<absl::Duration> retry_after) {
  const grpc::Status plain = ToGrpcStatus(status);
  if (status.ok() || !retry_after.has_value()) return plain;
  absl::Duration delay =
      std::clamp(*retry_after, absl::Seconds(1), absl::Minutes(1));
  v1::RetryInfo info;
  const int64_t seconds = absl::IDivDuration(delay, absl::Seconds(1), &delay);
  info.mutable_retry_delay()->set_seconds(seconds);
  info.mutable_retry_delay()->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(delay)));
  v1::StatusDetails details;
  details.set_code(plain.error_code());
  details.set_message(plain.error_message());
  auto* detail = details.add_details();
  detail->set_type_url("type.googleapis.com/google.rpc.RetryInfo");
  detail->set_value(info.SerializeAsString());
  return grpc::Status(plain.error_code(), plain.error_message(),
                      details.SerializeAsString());
}

}  // namespace tern
