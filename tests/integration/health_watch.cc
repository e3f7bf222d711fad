#include "tests/integration/health_watch.h"

#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "grpcpp/client_context.h"
#include "grpcpp/completion_queue.h"
#include "grpcpp/generic/generic_stub.h"
#include "grpcpp/support/byte_buffer.h"
#include "util/grpc_status.h"

namespace tern {
namespace {

// HealthCheckRequest and HealthCheckResponse have one field each, number 1; the
// generated code is inside the gRPC library and not for others.
grpc::ByteBuffer Request(const std::string& service) {
  std::string bytes;
  if (!service.empty()) {
    bytes = "\x0a";
    bytes += static_cast<char>(service.size());
    bytes += service;
  }
  grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

// ServingStatus: 1 is SERVING.
int StatusIn(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  if (!buffer.Dump(&slices).ok()) return 0;
  std::string bytes;
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes.size() >= 2 && bytes[0] == 0x08 ? bytes[1] : 0;
}

}  // namespace

absl::Status WaitForHealth(const std::shared_ptr<grpc::Channel>& channel,
                           const std::string& service, bool serving,
                           absl::Duration timeout) {
  grpc::GenericStub stub(channel);
  grpc::CompletionQueue queue;
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  context.set_deadline(absl::ToChronoTime(absl::Now() + timeout));
  auto call =
      stub.PrepareCall(&context, "/grpc.health.v1.Health/Watch", &queue);
  auto next = [&queue] {
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  bool found = false;
  int last = 0;
  call->StartCall(nullptr);
  if (next()) {
    call->WriteLast(Request(service), grpc::WriteOptions(), nullptr);
    if (next()) {
      grpc::ByteBuffer answer;
      while (!found) {
        call->Read(&answer, nullptr);
        if (!next()) break;
        last = StatusIn(answer);
        found = (last == 1) == serving;
      }
    }
  }
  if (found) context.TryCancel();
  grpc::Status status;
  call->Finish(&status, nullptr);
  next();
  if (found) return absl::OkStatus();
  const absl::Status error = FromGrpcStatus(status);
  return absl::Status(
      error.code(), absl::StrCat("health of \"", service, "\" is ", last, ": ",
                                 std::string(error.message())));
}

}  // namespace tern
