#include "coordinator/cluster_view.h"

#include <algorithm>
#include <functional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// Lost workers stay listed this many lease durations, for people to see.
constexpr int kLeasesRemembered = 60;

constexpr size_t kMaxModels = 1024;
// What bytes are computed of stays far below 2^63.
constexpr int kMaxBlockColumns = 1024;
constexpr int kMaxBlockBytes = 65536;
// Seconds of one layer, or of a head, for one token.
constexpr double kMaxStepTime = 1000;
// What a worker says of its speed is believed up to these.
constexpr double kMinSlowdown = 0.01;
constexpr double kMaxSlowdown = 100;
constexpr double kMaxLatency = 10;

bool IsName(absl::string_view text, size_t max_bytes) {
  return !text.empty() && text.size() <= max_bytes &&
         std::all_of(text.begin(), text.end(),
                     [](char c) { return c >= 0x20 && c < 0x7f; });
}

bool IsHostPort(absl::string_view address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  return colon != absl::string_view::npos && colon > 0 &&
         IsName(address, 300) &&
         absl::SimpleAtoi(address.substr(colon + 1), &port) && port > 0 &&
         port < 65536;
}

absl::Status CheckFields(const WorkerRegistration& r) {
  const auto invalid = [](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(parts...));
  };
  if (!IsName(r.worker_id, 128)) {
    return invalid("worker_id has ", r.worker_id.size(),
                   " bytes; it must be 1 to 128 printable ASCII characters");
  }
  if (r.incarnation == 0) {
    return invalid("incarnation is 0; it must be a random number");
  }
  if (!IsHostPort(r.address)) {
    return invalid("address of worker ", r.worker_id,
                   " is not \"host:port\" with a port in [1, 65535]");
  }
  if (!IsName(r.numerics_class, 64)) {
    return invalid("capabilities.numerics_class of worker ", r.worker_id,
                   " must be 1 to 64 printable ASCII characters");
  }
  if (r.memory_bytes <= 0) {
    return invalid("capabilities.memory_bytes is ", r.memory_bytes,
                   "; it must be positive");
  }
  if (r.thread_count <= 0) {
    return invalid("capabilities.thread_count is ", r.thread_count,
                   "; it must be positive");
  }
  if (r.repeat_max_limit < 1) {
    return invalid("capabilities.repeat_max_limit is ", r.repeat_max_limit,
                   "; it must be at least 1");
  }
  if (r.packed_blocks.columns < 1 ||
      r.packed_blocks.columns > kMaxBlockColumns || r.packed_blocks.bytes < 1 ||
      r.packed_blocks.bytes > kMaxBlockBytes) {
    return invalid("capabilities.packed_blocks are of ",
                   r.packed_blocks.columns, " columns and ",
                   r.packed_blocks.bytes, " bytes; 1 to ", kMaxBlockColumns,
                   " and 1 to ", kMaxBlockBytes, " are taken");
  }
  const StepTimes& t = r.step_times;
  for (const double seconds :
       {t.layer_step_s, t.layer_token_s, t.layer_context_s, t.head_step_s,
        t.head_row_s}) {
    // Written so that NaN fails.
    if (!(seconds >= 0 && seconds <= kMaxStepTime)) {
      return invalid("capabilities.step_times of worker ", r.worker_id,
                     " have ", seconds, " seconds; 0 to ", kMaxStepTime,
                     " are taken");
    }
  }
  if (!(r.link_bytes_per_second >= 0 && r.link_bytes_per_second <= 1e15)) {
    return invalid("capabilities.link_bytes_per_second is ",
                   r.link_bytes_per_second, "; 0 to 1e15 are taken");
  }
  if (r.models.size() > kMaxModels) {
    return invalid("capabilities.models has ", r.models.size(),
                   " entries; at most ", kMaxModels, " are taken");
  }
  for (const std::string& model : r.models) {
    if (model.empty() || model.size() > 255) {
      return invalid("capabilities.models has a name of ", model.size(),
                     " bytes; a name has 1 to 255");
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ClusterView::CheckClass(const WorkerRegistration& registration,
                                     bool may_change_class) const {
  if (numerics_class_.empty() ||
      registration.numerics_class == numerics_class_) {
    return absl::OkStatus();
  }
  const bool any_alive =
      std::any_of(workers_.begin(), workers_.end(),
                  [](const auto& entry) { return !entry.second.lost; });
  if (may_change_class && !any_alive) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "worker ", registration.worker_id, " computes with numerics class ",
      registration.numerics_class, "; this cluster's answers are ",
      numerics_class_,
      ", and another class would change them: run workers of one class"));
}

absl::StatusOr<int64_t> ClusterView::Register(WorkerRegistration registration,
                                              bool may_change_class,
                                              absl::Time now) {
  RETURN_IF_ERROR(CheckFields(registration));
  if (registration.protocol_version > kProtocolVersion ||
      registration.protocol_version < std::max(1, kProtocolVersion - 1)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "worker ", registration.worker_id, " speaks protocol version ",
        registration.protocol_version, "; this coordinator speaks ",
        kProtocolVersion, ": run workers and coordinator of one release"));
  }
  RETURN_IF_ERROR(CheckClass(registration, may_change_class));
  auto it = workers_.find(registration.worker_id);
  if (it != workers_.end()) {
    const Worker& old = it->second;
    if (old.registration.incarnation != registration.incarnation &&
        old.IsAlive() && !old.let_go &&
        now - old.last_heartbeat < options_.suspect_after) {
      return absl::AlreadyExistsError(absl::StrCat(
          "worker id ", registration.worker_id,
          " belongs to a living worker at ", old.registration.address,
          "; give this one another --worker_id, or, "
          "if it took the other's place, try until that has been silent for ",
          absl::FormatDuration(options_.suspect_after)));
    }
  } else if (static_cast<int>(workers_.size()) >= options_.max_workers) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the coordinator knows ", workers_.size(),
                     " workers already, which is its limit"));
  }
  numerics_class_ = registration.numerics_class;
  Worker worker;
  worker.lease_epoch = ++last_lease_epoch_;
  worker.last_heartbeat = now;
  worker.last_progress = now;
  if (it != workers_.end() &&
      it->second.registration.incarnation == registration.incarnation) {
    worker.holds = it->second.holds;
  }
  worker.registration = std::move(registration);
  const std::string worker_id = worker.registration.worker_id;
  workers_[worker_id] = std::move(worker);
  return last_lease_epoch_;
}

absl::Status ClusterView::Heartbeat(const WorkerHeartbeat& heartbeat,
                                    absl::Time now) {
  const std::string& worker_id = heartbeat.worker_id;
  auto it = workers_.find(worker_id);
  if (it == workers_.end() || it->second.lost) {
    return absl::NotFoundError(
        absl::StrCat("worker ", worker_id, " holds no lease; register again"));
  }
  Worker& worker = it->second;
  if (worker.lease_epoch != heartbeat.lease_epoch) {
    return absl::AbortedError(absl::StrCat(
        "lease epoch ", heartbeat.lease_epoch, " of worker ", worker_id,
        " is stale; the latest is ", worker.lease_epoch));
  }
  worker.last_heartbeat = now;
  worker.finished_step_count = heartbeat.finished_step_count;
  worker.unreachable = false;
  worker.draining = heartbeat.is_draining;
  worker.let_go = worker.let_go && worker.draining;
  if (heartbeat.progress != worker.progress) {
    worker.progress = heartbeat.progress;
    worker.last_progress = now;
    worker.hung = false;
  }
  // Nonsense counts as not said.
  if (heartbeat.slowdown > 0) {
    worker.slowdown =
        std::clamp(heartbeat.slowdown, kMinSlowdown, kMaxSlowdown);
    if (worker.slowdown >= kSlow) worker.slow = true;
    if (worker.slowdown <= kNoLongerSlow) worker.slow = false;
  }
  if (heartbeat.round_trip > absl::ZeroDuration()) {
    worker.link_latency_s =
        std::min(kMaxLatency, absl::ToDoubleSeconds(heartbeat.round_trip) / 2);
  }
  return absl::OkStatus();
}

std::vector<std::string> ClusterView::Expire(absl::Time now) {
  std::vector<std::string> lost;
  for (auto it = workers_.begin(); it != workers_.end();) {
    Worker& worker = it->second;
    const absl::Duration silence = now - worker.last_heartbeat;
    if (!worker.lost && silence >= options_.lease_duration) {
      worker.lost = true;
      lost.push_back(it->first);
    }
    if (silence >= kLeasesRemembered * options_.lease_duration) {
      it = workers_.erase(it);
    } else {
      ++it;
    }
  }
  return lost;
}

absl::Time ClusterView::NextExpiry() const {
  absl::Time next = absl::InfiniteFuture();
  for (const auto& [id, worker] : workers_) {
    if (worker.lost) continue;
    next = std::min(next, worker.last_heartbeat + options_.lease_duration);
  }
  return next;
}

void ClusterView::MarkUnreachable(absl::string_view worker_id) {
  auto it = workers_.find(worker_id);
  if (it != workers_.end()) it->second.unreachable = true;
}

void ClusterView::MarkHung(absl::string_view worker_id) {
  auto it = workers_.find(worker_id);
  if (it != workers_.end()) it->second.hung = true;
}

void ClusterView::SetHolds(absl::string_view worker_id,
                           const StageRange& range) {
  auto it = workers_.find(worker_id);
  if (it == workers_.end()) return;
  it->second.holds = range;
  DropDisproved(range, &it->second.refused);
}

void ClusterView::NoteRefused(absl::string_view worker_id,
                              const StageRange& range,
                              const absl::Status& why) {
  auto it = workers_.find(worker_id);
  if (it == workers_.end() || !IsAboutStage(why)) return;
  AddRefused({range, why}, &it->second.refused);
}

void ClusterView::LetGo(absl::string_view worker_id) {
  auto it = workers_.find(worker_id);
  if (it != workers_.end()) it->second.let_go = true;
}

bool ClusterView::Release(absl::string_view worker_id) {
  auto it = workers_.find(worker_id);
  if (it == workers_.end()) return false;
  it->second.released = true;
  return true;
}

bool ClusterView::SetCordoned(absl::string_view worker_id, bool cordoned) {
  auto it = workers_.find(worker_id);
  if (it == workers_.end()) return false;
  it->second.registration.cordoned = cordoned;
  return true;
}

void ClusterView::Forget(absl::string_view worker_id) {
  auto it = workers_.find(worker_id);
  if (it != workers_.end()) workers_.erase(it);
}

std::vector<const Worker*> ClusterView::Available(absl::string_view model,
                                                  bool may_fetch) const {
  std::vector<const Worker*> available;
  std::vector<const Worker*> fetching;
  for (const auto& [id, worker] : workers_) {
    if (!worker.IsAvailable()) continue;
    const std::vector<std::string>& models = worker.registration.models;
    if (std::find(models.begin(), models.end(), model) != models.end()) {
      available.push_back(&worker);
    } else if (may_fetch && worker.registration.can_fetch_weights) {
      fetching.push_back(&worker);
    }
  }
  available.insert(available.end(), fetching.begin(), fetching.end());
  return available;
}

const Worker* ClusterView::Find(absl::string_view worker_id) const {
  auto it = workers_.find(worker_id);
  return it == workers_.end() ? nullptr : &it->second;
}

}  // namespace tern
