// The coordinator: takes requests, plans the steps of a pipeline of workers,
// streams text back.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "coordinator/coordinator.h"
#include "util/credential_flags.h"
#include "util/logging.h"
#include "util/server_main.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:7600",
          "Address to listen on, \"host:port\". Port 0 picks a free one.");
ABSL_FLAG(std::string, model, "",
          "Required. Path of the model: a GGUF file, or a directory with "
          "config.json and safetensors.");
ABSL_FLAG(std::string, model_name, "",
          "Name that requests and workers use for the model. Empty: the "
          "file's name without .gguf.");
ABSL_FLAG(std::string, chat_template, "",
          "File with a chat template (Jinja) to take in place of the model's. "
          "Empty: the model's own; without one it takes no conversations.");
ABSL_FLAG(int, stages, 1,
          "Number of workers that share the model, each with a part of its "
          "layers.");
ABSL_FLAG(std::string, head_mode, "int8",
          "Precision of the output head: int8, or stored for the file's own. "
          "Part of the numerics id: answers differ between the two.");
ABSL_FLAG(int64_t, kv_cache_tokens, 0,
          "Tokens that the KV cache holds. 0: enough for every sequence's "
          "context, as far as the workers' memory goes.");
ABSL_FLAG(bool, prefix_cache, true,
          "Whether prompts of one principal that begin alike share what has "
          "been computed for their beginning. Answers are the same either "
          "way.");
ABSL_FLAG(int, max_sequences, 64,
          "Most sequences that run at a time on each pipeline.");
ABSL_FLAG(int, max_queued_requests, 1024,
          "Most requests that wait to run; above that they are refused with "
          "RESOURCE_EXHAUSTED.");
ABSL_FLAG(int64_t, max_queued_tokens, 4 << 20,
          "Most prompt tokens, less those in a KV cache, that wait with them; "
          "above that requests are refused likewise.");
ABSL_FLAG(int, max_step_tokens, 512,
          "Most tokens of one step, prompts and new tokens together.");
ABSL_FLAG(double, max_step_stretch, 2,
          "How much longer a step may take for the prompts in it while other "
          "answers are being written: 2 lets them come half as fast at worst. "
          "Higher gives prompts more.");
ABSL_FLAG(int, max_draft_tokens, 8,
          "Most guesses at its next tokens that a request has checked in a "
          "step, made where its text repeats itself and as far as they are "
          "worth their time. Answers are the same. 0 for none.");
ABSL_FLAG(bool, always_drafts, false,
          "Whether guesses are checked even where they are not worth their "
          "time: for measurements.");
ABSL_FLAG(absl::Duration, lease, absl::Seconds(10),
          "A worker is lost this long after its last heartbeat.");
ABSL_FLAG(absl::Duration, hang_timeout, absl::Seconds(2),
          "A worker that owes the result of a step and has computed nothing, "
          "not one layer, for so long, or for three times what the step "
          "should take if that is longer, loses its stage.");
ABSL_FLAG(absl::Duration, unavailable_after, absl::Seconds(30),
          "Requests that wait this long for lost workers to be replaced end "
          "with UNAVAILABLE.");
ABSL_FLAG(bool, content_hash, true,
          "Whether the model's files are read and hashed at the start, so that "
          "workers check their own against them, and fetch what they lack. "
          "False: only headers are compared.");
ABSL_FLAG(bool, blob_service, true,
          "Whether workers without the model's files may fetch them from here; "
          "false leaves that to other workers. Needs --content_hash.");
ABSL_FLAG(int64_t, blob_bandwidth, 0,
          "Bytes per second that all workers together fetch from here at "
          "most, at least 1048576. 0: no limit.");
ABSL_FLAG(std::string, cache_dir, "",
          "Folder where hashes of files that do not change are remembered, so "
          "that the next start need not read them. Empty: none.");
ABSL_FLAG(std::string, port_file, "",
          "File to write the port to once it is open. Empty: none.");

namespace {

constexpr char kUsage[] =
    "Serves a ternary language model with the workers that register here.";

int Run() {
  tern::Coordinator::Options options;
  options.listen = absl::GetFlag(FLAGS_listen);
  options.model_path = absl::GetFlag(FLAGS_model);
  options.model_name = absl::GetFlag(FLAGS_model_name);
  options.chat_template_path = absl::GetFlag(FLAGS_chat_template);
  options.n_stages = absl::GetFlag(FLAGS_stages);
  options.head_mode = absl::GetFlag(FLAGS_head_mode);
  options.kv_cache_tokens = absl::GetFlag(FLAGS_kv_cache_tokens);
  options.max_sequences = absl::GetFlag(FLAGS_max_sequences);
  options.prefix_cache = absl::GetFlag(FLAGS_prefix_cache);
  options.max_queued_requests = absl::GetFlag(FLAGS_max_queued_requests);
  options.max_queued_tokens = absl::GetFlag(FLAGS_max_queued_tokens);
  options.max_step_tokens = absl::GetFlag(FLAGS_max_step_tokens);
  options.max_step_stretch = absl::GetFlag(FLAGS_max_step_stretch);
  options.max_draft_tokens = absl::GetFlag(FLAGS_max_draft_tokens);
  options.always_drafts = absl::GetFlag(FLAGS_always_drafts);
  options.lease = absl::GetFlag(FLAGS_lease);
  options.hang_timeout = absl::GetFlag(FLAGS_hang_timeout);
  options.unavailable_after = absl::GetFlag(FLAGS_unavailable_after);
  options.content_hash = absl::GetFlag(FLAGS_content_hash);
  options.cache_dir = absl::GetFlag(FLAGS_cache_dir);
  options.blobs.sends = absl::GetFlag(FLAGS_blob_service);
  options.blobs.bandwidth = absl::GetFlag(FLAGS_blob_bandwidth);
  options.credentials = tern::CredentialOptionsFromFlags();

  tern::BlockShutdownSignals();
  absl::StatusOr<std::unique_ptr<tern::Coordinator>> coordinator =
      tern::Coordinator::Create(options);
  if (!coordinator.ok()) {
    LOG(ERROR) << "event=start_failed status=" << coordinator.status();
    return EXIT_FAILURE;
  }
  const absl::Status written = tern::WritePortFile(
      absl::GetFlag(FLAGS_port_file), (*coordinator)->port());
  if (!written.ok()) {
    LOG(ERROR) << "event=start_failed status=" << written;
    return EXIT_FAILURE;
  }
  const int signal = tern::WaitForShutdownSignal();
  LOG(INFO) << "event=shutting_down signal=" << signal;
  (*coordinator)->Shutdown();
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  tern::ParseServerFlags(argc, argv, kUsage,
                         {"coordinator/main.cc", tern::kCredentialFlagsFile});
  return Run();
}
