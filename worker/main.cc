// tern worker: serves one stage of a ternary language model.

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "util/credential_flags.h"
#include "util/logging.h"
#include "util/server_main.h"
#include "worker/worker.h"

ABSL_FLAG(std::string, listen, "127.0.0.1:0",
          "Address to listen on, host:port; port 0 takes a free one.");
ABSL_FLAG(std::string, advertise_address, "",
          "Address at which coordinator and workers reach this one. Empty: "
          "that of --listen.");
ABSL_FLAG(std::string, coordinator, "127.0.0.1:7600",
          "Address of the coordinator, or of several, separated by commas, of "
          "which one serves at a time.");
ABSL_FLAG(std::vector<std::string>, model, {},
          "The model: a GGUF file, or a directory with config.json and "
          "safetensors. Several, separated by commas: the worker serves one at "
          "a time, as the coordinator needs it. May be left out with "
          "--cache_dir.");
ABSL_FLAG(std::vector<std::string>, model_name, {},
          "Name of the model in the cluster, or names, one for each. Empty: "
          "the path's last part, without .gguf.");
ABSL_FLAG(std::string, worker_id, "",
          "Name of this worker, stable over restarts. Empty: host name and "
          "process number.");
ABSL_FLAG(int, threads, 0,
          "Compute threads. 0: all processors that the process may use.");
ABSL_FLAG(std::string, pin, "auto",
          "Whether compute threads are bound to processors: on, off, or auto: "
          "when they take every core of a cpuset, or of a machine with several "
          "memory nodes, and no CPU quota holds them back.");
ABSL_FLAG(int64_t, memory_bytes, 0,
          "Bytes that weights and KV cache may take together. 0: 80 % of what "
          "is available at the start.");
ABSL_FLAG(std::string, isa, "auto",
          "Instruction set of the kernels: auto, ref, avx2, avxvnni, "
          "avx512vnni256, avx512vnni, neon, neon_dotprod, neon_i8mm. All "
          "compute the same bits.");
ABSL_FLAG(std::string, weights_packing, "2bit",
          "How ternary weights lie in memory: 2bit; base3 (needs avx512vnni "
          "and a CPU with VBMI) or tl2 (x86), which take 5/6 of the room; tl1 "
          "(ARM), which takes as much; auto measures which is read fastest. "
          "All give the same bits.");
ABSL_FLAG(bool, measure_step_times, true,
          "Whether to measure at the start, in some 0.3 s, how long stages of "
          "the model take here, for the coordinator to cut the model by. "
          "Without, it goes by bytes.");
ABSL_FLAG(double, link_gbits, 0,
          "Bandwidth to other workers in Gbit/s, for the same purpose. 0: more "
          "than matters.");
ABSL_FLAG(std::string, cache_dir, "",
          "Folder into which weights are fetched that this worker has no file "
          "of, from other workers and the coordinator, and where hashes of "
          "files are remembered. Workers on one machine may share it. Empty: "
          "nothing is fetched.");
ABSL_FLAG(int64_t, cache_max_bytes, int64_t{50} << 30,
          "Bytes that fetched weights may take on the disk. Models used "
          "longest ago go first, those in use never.");
ABSL_FLAG(bool, blob_service, true,
          "Whether other workers may fetch from here what this one holds.");
ABSL_FLAG(int64_t, blob_bandwidth, 0,
          "Bytes per second that others together fetch from here at most, at "
          "least 1048576. 0: no limit.");
ABSL_FLAG(absl::Duration, drain_timeout, absl::Seconds(30),
          "How long SIGTERM and SIGINT wait until what runs here has moved to "
          "other workers or, where none can take it, has ended. A second "
          "signal does not wait.");
ABSL_FLAG(std::string, port_file, "",
          "File to write the port to once the server listens. Empty: none.");

int main(int argc, char** argv) {
  tern::ParseServerFlags(
      argc, argv, "tern worker: serves one stage of a ternary language model.",
      {"worker/main.cc", tern::kCredentialFlagsFile});
  tern::BlockShutdownSignals();

  tern::Worker::Options options;
  options.listen = absl::GetFlag(FLAGS_listen);
  options.advertise_address = absl::GetFlag(FLAGS_advertise_address);
  options.coordinator = absl::GetFlag(FLAGS_coordinator);
  const std::vector<std::string> names = absl::GetFlag(FLAGS_model_name);
  for (const std::string& path : absl::GetFlag(FLAGS_model)) {
    const size_t i = options.models.size();
    options.models.push_back({path, i < names.size() ? names[i] : ""});
  }
  if (names.size() > options.models.size()) {
    LOG(ERROR) << "--model_name has " << names.size() << " names for "
               << options.models.size() << " models";
    return EXIT_FAILURE;
  }
  options.worker_id = absl::GetFlag(FLAGS_worker_id);
  options.n_threads = absl::GetFlag(FLAGS_threads);
  options.pin = absl::GetFlag(FLAGS_pin);
  options.memory_bytes = absl::GetFlag(FLAGS_memory_bytes);
  options.isa = absl::GetFlag(FLAGS_isa);
  options.weights_packing = absl::GetFlag(FLAGS_weights_packing);
  options.measure_step_times = absl::GetFlag(FLAGS_measure_step_times);
  options.link_bytes_per_second = absl::GetFlag(FLAGS_link_gbits) * 1e9 / 8;
  options.cache.folder = absl::GetFlag(FLAGS_cache_dir);
  options.cache.bytes_max = absl::GetFlag(FLAGS_cache_max_bytes);
  options.blobs.sends = absl::GetFlag(FLAGS_blob_service);
  options.blobs.bandwidth = absl::GetFlag(FLAGS_blob_bandwidth);
  options.credentials = tern::CredentialOptionsFromFlags();
  if (options.models.empty() && options.cache.folder.empty()) {
    LOG(ERROR) << "--model is required: the file or directory to serve; or "
                  "--cache_dir, a folder to fetch what others serve into";
    return EXIT_FAILURE;
  }
  absl::StatusOr<std::unique_ptr<tern::Worker>> worker =
      tern::Worker::Create(options);
  if (!worker.ok()) {
    LOG(ERROR) << "event=start_failed status=\"" << worker.status().ToString()
               << "\"";
    return EXIT_FAILURE;
  }
  const absl::Status written =
      tern::WritePortFile(absl::GetFlag(FLAGS_port_file), (*worker)->port());
  if (!written.ok()) {
    LOG(ERROR) << "event=start_failed status=\"" << written.ToString() << "\"";
    return EXIT_FAILURE;
  }
  const int signal = tern::WaitForShutdownSignal();
  LOG(INFO) << "event=shutdown signal=" << signal;
  (*worker)->Drain(absl::GetFlag(FLAGS_drain_timeout));
  (*worker)->Shutdown();
  return EXIT_SUCCESS;
}
