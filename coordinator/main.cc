// The coordinator: takes requests, plans the steps of a pipeline of workers,
// streams text back.
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/statusor.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "coordinator/coordinator.h"
#include "coordinator/leader_lease.h"
#include "coordinator/model_instance.h"
#include "util/credential_flags.h"
#include "util/logging.h"
#include "util/server_main.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:7600",
          "Address to listen on, \"host:port\". Port 0 picks a free one.");
ABSL_FLAG(std::vector<std::string>, model, {},
          "Required without --models_dir. Path of the model: a GGUF file, or a "
          "directory with config.json and safetensors. Several, separated by "
          "commas, are served side by side, each by workers of "
          "its own.");
ABSL_FLAG(std::vector<std::string>, model_name, {},
          "Name that requests and workers use for the model, or names, one for "
          "each. Empty: the file's name without .gguf.");
ABSL_FLAG(std::string, models_dir, "",
          "Directory in which `tern models load` finds files. Empty: models "
          "are loaded at the start only.");
ABSL_FLAG(std::string, chat_template, "",
          "File with a chat template (Jinja) to take in place of the models'. "
          "Empty: the models' own; without one it takes no conversations.");
ABSL_FLAG(int, stages, 0,
          "Number of workers that share the model, each with a part of its "
          "layers. 0: one where the model fits a worker, else as many as give "
          "the most tokens per second.");
ABSL_FLAG(
    std::vector<std::string>, layer_cuts, {},
    "Where the model is cut into stages: --layer_cuts=24 makes one of the "
    "first 24 layers and one of the others. Empty: by what workers are "
    "measured to take.");
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
ABSL_FLAG(std::string, keep_boundary, "auto",
          "Whether stages keep what they send to the next one, for every token "
          "in the KV cache: a stage that is lost is then computed again "
          "without those before it. always: the KV cache is smaller by that "
          "much. auto: where it is not. never.");
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
ABSL_FLAG(absl::Duration, recut_interval, absl::Seconds(60),
          "A pipeline is cut anew at most once in so long, when its workers' "
          "speeds have changed, or spares have come, so that it pays. 0: "
          "never.");
ABSL_FLAG(double, recut_gain, 0.2,
          "By how much the tokens per second must grow for that.");
ABSL_FLAG(absl::Duration, hang_timeout, absl::Seconds(2),
          "A worker that owes the result of a step and has computed nothing, "
          "not one layer, for so long, or for three times what the step "
          "should take if that is longer, loses its stage.");
ABSL_FLAG(absl::Duration, unavailable_after, absl::Seconds(30),
          "Requests that wait this long for lost workers to be replaced end "
          "with UNAVAILABLE.");
ABSL_FLAG(bool, allow_numerics_change, false,
          "Whether requests go on with another arithmetic than they were begun "
          "with (another --head_mode after a restart, another class of "
          "workers) when no worker has theirs any more. Their responses say "
          "so: the tokens that follow may be others than they would have had. "
          "False: they end with FAILED_PRECONDITION.");
ABSL_FLAG(std::string, journal_dir, "",
          "Folder, made if need be, of the journal: with it, requests whose "
          "callers asked to be able to resume outlive this process. It holds "
          "prompts and answers. While another coordinator has the folder this "
          "one waits, as its standby. Empty: none.");
ABSL_FLAG(std::string, journal_sync, "none",
          "none: what the journal has survives the death of this process, the "
          "latest of it maybe not that of the machine. batch: that, too; every "
          "write is forced to the disk.");
ABSL_FLAG(int64_t, journal_max_bytes, int64_t{1} << 30,
          "Largest size of the journal; it is given up, until the next start, "
          "when the requests in it take more than half of it.");
ABSL_FLAG(bool, content_hash, true,
          "Whether the models' files are read and hashed at the start, so that "
          "workers check their own against them, and fetch what they lack. "
          "False: only headers are compared.");
ABSL_FLAG(bool, blob_service, true,
          "Whether workers without a model's files may fetch them from here; "
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

// How soon a standby sees that nobody serves any more.
constexpr absl::Duration kStandbyInterval = absl::Milliseconds(100);

// Waits until no other coordinator has the journal's folder. Returns the lease,
// or null when this process was told to end meanwhile.
absl::StatusOr<std::unique_ptr<tern::LeaderLease>> AwaitLease(
    const std::string& folder, const std::string& listen) {
  char host[256] = "";
  gethostname(host, sizeof(host) - 1);
  absl::StatusOr<std::unique_ptr<tern::LeaderLease>> lease =
      tern::OpenFileLease(folder, absl::StrCat("host=", host, " pid=", getpid(),
                                               " listen=", listen));
  if (!lease.ok()) return lease;
  std::string said;
  for (;;) {
    const absl::StatusOr<bool> is_ours = (*lease)->TryAcquire();
    if (!is_ours.ok()) return is_ours.status();
    if (*is_ours) return lease;
    const std::string holder = (*lease)->Holder();
    if (said != holder) {
      LOG(INFO) << "event=standby journal_dir=" << folder << " holder=\""
                << holder << "\"; serving nothing until it is gone";
      said = holder;
    }
    if (tern::ShutdownSignalWithin(kStandbyInterval) != 0) {
      return std::unique_ptr<tern::LeaderLease>();
    }
  }
}

constexpr char kUsage[] =
    "Serves ternary language models with the workers that register here.";

int Run() {
  tern::Coordinator::Options options;
  options.listen = absl::GetFlag(FLAGS_listen);
  options.models_dir = absl::GetFlag(FLAGS_models_dir);
  options.defaults.chat_template_path = absl::GetFlag(FLAGS_chat_template);
  options.defaults.n_stages = absl::GetFlag(FLAGS_stages);
  options.defaults.head_mode = absl::GetFlag(FLAGS_head_mode);
  options.defaults.kv_cache_tokens = absl::GetFlag(FLAGS_kv_cache_tokens);
  for (const std::string& text : absl::GetFlag(FLAGS_layer_cuts)) {
    int cut = 0;
    if (!absl::SimpleAtoi(text, &cut)) {
      LOG(ERROR) << "--layer_cuts: \"" << text << "\" is no number of layers";
      return EXIT_FAILURE;
    }
    options.defaults.layer_cuts.push_back(cut);
  }
  const std::vector<std::string> names = absl::GetFlag(FLAGS_model_name);
  for (const std::string& path : absl::GetFlag(FLAGS_model)) {
    tern::ModelSpec spec = options.defaults;
    spec.path = path;
    if (options.models.size() < names.size()) {
      spec.name = names[options.models.size()];
    }
    options.models.push_back(std::move(spec));
  }
  if (names.size() > options.models.size()) {
    LOG(ERROR) << "event=start_failed status=\"--model_name has "
               << names.size() << " names for " << options.models.size()
               << " models\"";
    return EXIT_FAILURE;
  }
  options.max_sequences = absl::GetFlag(FLAGS_max_sequences);
  options.prefix_cache = absl::GetFlag(FLAGS_prefix_cache);
  options.keep_boundary = absl::GetFlag(FLAGS_keep_boundary);
  options.max_queued_requests = absl::GetFlag(FLAGS_max_queued_requests);
  options.max_queued_tokens = absl::GetFlag(FLAGS_max_queued_tokens);
  options.max_step_tokens = absl::GetFlag(FLAGS_max_step_tokens);
  options.max_step_stretch = absl::GetFlag(FLAGS_max_step_stretch);
  options.max_draft_tokens = absl::GetFlag(FLAGS_max_draft_tokens);
  options.always_drafts = absl::GetFlag(FLAGS_always_drafts);
  options.lease = absl::GetFlag(FLAGS_lease);
  options.recut.interval = absl::GetFlag(FLAGS_recut_interval);
  options.recut.min_gain = absl::GetFlag(FLAGS_recut_gain);
  options.hang_timeout = absl::GetFlag(FLAGS_hang_timeout);
  options.unavailable_after = absl::GetFlag(FLAGS_unavailable_after);
  options.allow_numerics_change = absl::GetFlag(FLAGS_allow_numerics_change);
  options.journal_dir = absl::GetFlag(FLAGS_journal_dir);
  options.journal_sync = absl::GetFlag(FLAGS_journal_sync);
  options.journal_max_bytes = absl::GetFlag(FLAGS_journal_max_bytes);
  options.content_hash = absl::GetFlag(FLAGS_content_hash);
  options.cache_dir = absl::GetFlag(FLAGS_cache_dir);
  options.blobs.sends = absl::GetFlag(FLAGS_blob_service);
  options.blobs.bandwidth = absl::GetFlag(FLAGS_blob_bandwidth);
  options.credentials = tern::CredentialOptionsFromFlags();

  tern::BlockShutdownSignals();
  std::unique_ptr<tern::LeaderLease> lease;  // outlives the coordinator
  if (!options.journal_dir.empty()) {
    absl::StatusOr<std::unique_ptr<tern::LeaderLease>> ours =
        AwaitLease(options.journal_dir, options.listen);
    if (!ours.ok()) {
      LOG(ERROR) << "event=start_failed status=" << ours.status();
      return EXIT_FAILURE;
    }
    if (*ours == nullptr) return EXIT_SUCCESS;
    lease = *std::move(ours);
  }
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
