#include "worker/fetching_host.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "blob/content_hash.h"
#include "model/model_file.h"
#include "model/stage_plan.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// Loads that may wait for the one under way to notice that it is over.
constexpr int kWaitingLoadsMax = 4;

// A text of some 100 KB; nothing can be cancelled before it is over.
constexpr absl::Duration kManifestTimeout = absl::Seconds(3);

// Tensors up to this size come with every stage: opening a model looks at norms
// and scales of all its layers.
constexpr int64_t kSmallPartBytes = 64 << 10;

StageRange RangeOf(const StageRequest& request) {
  return {request.layer_begin, request.layer_end, request.stage_index == 0,
          request.stage_index == request.stage_count - 1};
}

// Blocks of the parts that `is_needed`.
template <typename Predicate>
std::vector<int> BlocksOf(const Manifest& manifest,
                          const std::vector<ManifestBlock>& blocks,
                          Predicate is_needed) {
  std::vector<int> numbers;
  for (size_t i = 0; i < blocks.size(); ++i) {
    if (is_needed(manifest.files[blocks[i].file].parts[blocks[i].part])) {
      numbers.push_back(static_cast<int>(i));
    }
  }
  return numbers;
}

// What it takes to open a model.
std::vector<int> BaseBlocks(const Manifest& manifest,
                            const std::vector<ManifestBlock>& blocks) {
  return BlocksOf(manifest, blocks, [](const ManifestPart& part) {
    return part.name.empty() || part.bytes <= kSmallPartBytes;
  });
}

// What a stage needs besides.
std::vector<int> StageBlocks(const Manifest& manifest,
                             const std::vector<ManifestBlock>& blocks,
                             const ModelSource& source,
                             const StageRequest& request) {
  const StageRange range = RangeOf(request);
  return BlocksOf(manifest, blocks, [&](const ManifestPart& part) {
    return !part.name.empty() && part.bytes > kSmallPartBytes &&
           source.NeedsTensor(part.name, range);
  });
}

std::string NamesOf(const FetchingHost::Models& models) {
  return absl::StrJoin(models, ", ", [](std::string* out, const auto& model) {
    absl::StrAppend(out, "\"", model.first, "\"");
  });
}

int64_t BytesOf(const std::vector<ManifestBlock>& blocks,
                const std::vector<int>& numbers) {
  int64_t bytes = 0;
  for (const int number : numbers) bytes += blocks[number].bytes;
  return bytes;
}

// Counts what was fetched as a part of the load.
class LoadAfterFetch : public LoadObserver {
 public:
  LoadAfterFetch(std::shared_ptr<LoadObserver> observer, int64_t fetched_bytes)
      : observer_(std::move(observer)), fetched_bytes_(fetched_bytes) {}

  void OnProgress(int64_t loaded_bytes, int64_t total_bytes) override {
    observer_->OnProgress(fetched_bytes_ + loaded_bytes,
                          fetched_bytes_ + total_bytes);
  }
  void OnLoaded(absl::StatusOr<LoadedStage> loaded) override {
    observer_->OnLoaded(std::move(loaded));
  }
  bool IsCancelled() override { return observer_->IsCancelled(); }

 private:
  const std::shared_ptr<LoadObserver> observer_;
  const int64_t fetched_bytes_;
};

}  // namespace

FetchingHost::FetchingHost(const Options& options, Models own,
                           ModelCache* cache, HashMemory* memory,
                           HostFactory make_host, SourceFactory make_sources)
    : options_(options),
      own_(std::move(own)),
      cache_(cache),
      memory_(memory),
      make_host_(std::move(make_host)),
      make_sources_(std::move(make_sources)),
      jobs_(kWaitingLoadsMax) {
  CHECK(!own_.empty() || cache_ != nullptr);
  if (!own_.empty()) HostOf(own_.begin()->first, own_.begin()->second);
  thread_ = std::thread([this] { Main(); });
}

FetchingHost::~FetchingHost() {
  Shutdown(absl::UnavailableError("the worker is shutting down"));
  thread_.join();
}

std::shared_ptr<const ModelSource> FetchingHost::OwnOf(
    const StageRequest& request) const {
  const auto own = own_.find(request.model);
  if (own == own_.end() ||
      own->second->fingerprint() != request.model_fingerprint) {
    return nullptr;
  }
  return own->second;
}

absl::Status FetchingHost::Load(const StageRequest& request,
                                std::shared_ptr<LoadObserver> observer) {
  const bool is_own = OwnOf(request) != nullptr;
  if (!request.content_id.empty() && !IsContentId(request.content_id)) {
    return absl::InvalidArgumentError(
        "content_id is not of 64 hexadecimal digits");
  }
  if (cache_ != nullptr && request.content_id.empty() &&
      own_.count(request.model) == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "this worker has no file for model \"", request.model,
        "\", and the coordinator names no content to fetch: give the worker "
        "--model, or the coordinator --content_hash"));
  }
  // Another file, or none, and nowhere to fetch into.
  if (!is_own && (cache_ == nullptr || request.content_id.empty())) {
    const auto own = own_.find(request.model);
    if (own == own_.end()) {
      return absl::NotFoundError(absl::StrCat(
          "this worker has no file for model \"", request.model,
          "\", and no --cache_dir to fetch it into; it has ", NamesOf(own_)));
    }
    return absl::FailedPreconditionError(absl::StrCat(
        "this worker's file of model \"", request.model,
        "\" is another one: its fingerprint is ",
        absl::Hex(own->second->fingerprint(), absl::kZeroPad16), ", not ",
        absl::Hex(request.model_fingerprint, absl::kZeroPad16)));
  }
  // Nothing to check or to fetch, and always the same stage host.
  if (cache_ == nullptr && own_.size() == 1 && request.content_id.empty()) {
    return host()->Load(request, std::move(observer));
  }
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(shutdown_);
  if (request.epoch <= epoch_) {
    return absl::AbortedError(absl::StrCat(
        "epoch ", request.epoch, " is stale; this worker is at ", epoch_));
  }
  if (!jobs_.TryPush(Job{request, std::move(observer)})) {
    return absl::ResourceExhaustedError(absl::StrCat(
        kWaitingLoadsMax, " loads wait already, which is the most"));
  }
  epoch_ = request.epoch;
  return absl::OkStatus();
}

absl::StatusOr<StageBackend::Plans> FetchingHost::plans() const {
  const std::shared_ptr<StageHost> host = this->host();
  if (host != nullptr) return host->plans();
  return absl::FailedPreconditionError(
      "no stage is loaded on this worker; call LoadStage first");
}

absl::StatusOr<absl::optional<Inboxes>> FetchingHost::InboxesOf(
    absl::string_view model, absl::string_view pipeline_id,
    int64_t epoch) const {
  const std::shared_ptr<StageHost> host = this->host();
  if (host != nullptr) return host->InboxesOf(model, pipeline_id, epoch);
  return absl::AbortedError(
      absl::StrCat("what another stage sent in epoch ", epoch,
                   " came before this worker had loaded its stage for it"));
}

void FetchingHost::OnCancelledWithoutPlans() {
  const std::shared_ptr<StageHost> host = this->host();
  if (host != nullptr) host->OnCancelledWithoutPlans();
}

std::shared_ptr<const BlobContent> FetchingHost::Find(
    absl::string_view content_id) {
  {
    absl::MutexLock lock(&mu_);
    for (const auto& content : own_contents_) {
      if (content->content_id() == content_id) return content;
    }
  }
  return cache_ == nullptr ? nullptr : cache_->Find(content_id);
}

void FetchingHost::Shutdown(absl::Status status) {
  CHECK(!status.ok());
  std::shared_ptr<StageHost> host;
  {
    absl::MutexLock lock(&mu_);
    if (!shutdown_.ok()) return;
    shutdown_ = status;
    host = host_;
  }
  jobs_.Close();
  if (host != nullptr) host->Shutdown(std::move(status));
}

int64_t FetchingHost::finished_step_count() const {
  absl::MutexLock lock(&mu_);
  return past_steps_ + (host_ == nullptr ? 0 : host_->finished_step_count());
}

int64_t FetchingHost::progress() const {
  absl::MutexLock lock(&mu_);
  return past_progress_ + (host_ == nullptr ? 0 : host_->progress());
}

void FetchingHost::Main() {
  Job job;
  while (jobs_.Pop(&job)) {
    const absl::Status status = Run(job);
    if (!status.ok()) {
      LOG(WARNING) << "event=stage_not_loaded pipeline="
                   << job.request.pipeline_id << " epoch=" << job.request.epoch
                   << " status=\"" << status.ToString() << "\"";
      job.observer->OnLoaded(status);
    }
    job = Job();
  }
}

absl::Status FetchingHost::Run(const Job& job) {
  absl::StatusOr<Checked> checked = CheckWeights(job);
  // Says why it was cancelled, if it was.
  RETURN_IF_ERROR(StillWanted(job));
  RETURN_IF_ERROR(checked.status());
  return HostOf(job.request.model, checked->source)
      ->Load(job.request, std::make_shared<LoadAfterFetch>(
                              job.observer, checked->fetched_bytes));
}

absl::StatusOr<FetchingHost::Checked> FetchingHost::CheckWeights(
    const Job& job) {
  const StageRequest& r = job.request;
  RETURN_IF_ERROR(StillWanted(job));
  const std::shared_ptr<const ModelSource> own_source = OwnOf(r);
  if (r.content_id.empty()) return Checked{own_source, 0};
  // Before gigabytes are read.
  if (own_source != nullptr) {
    RETURN_IF_ERROR(HostOf(r.model, own_source)->CheckRequest(r));
  }
  std::vector<std::shared_ptr<WeightSource>> sources = make_sources_(r);
  ASSIGN_OR_RETURN(const std::string manifest_text, FindManifest(job, sources));
  if (own_source != nullptr) {
    ASSIGN_OR_RETURN(const Manifest manifest, ParseManifest(manifest_text));
    std::shared_ptr<const ModelContent> own;
    std::string difference;
    RETURN_IF_ERROR(
        CheckOwnFile(job, *own_source, manifest, &own, &difference));
    if (difference.empty()) return Checked{own_source, 0};
    if (cache_ == nullptr) {
      return absl::FailedPreconditionError(absl::StrCat(
          difference,
          ": copy the file again, or give the worker --cache_dir to fetch "
          "what differs"));
    }
    LOG(WARNING) << "event=own_file_differs model=" << r.model << " reason=\""
                 << difference << "\"; fetching what differs";
    if (own != nullptr) {
      sources.insert(sources.begin(), std::make_shared<FileWeightSource>(
                                          "own file", std::move(own)));
    }
  }
  return FetchReplica(job, manifest_text, sources);
}

absl::StatusOr<std::string> FetchingHost::FindManifest(
    const Job& job, const std::vector<std::shared_ptr<WeightSource>>& sources) {
  const std::string& content_id = job.request.content_id;
  if (const auto held = Find(content_id)) return held->manifest_text();
  std::string said;
  // The coordinator, who comes last, knows it for certain.
  for (auto it = sources.rbegin(); it != sources.rend(); ++it) {
    RETURN_IF_ERROR(StillWanted(job));
    absl::StatusOr<std::string> text =
        (*it)->GetManifest(content_id, kManifestTimeout);
    if (text.ok() && ContentIdOf(*text) == content_id) return text;
    absl::StrAppend(&said, said.empty() ? " " : "; ", (*it)->name(), ": ",
                    text.ok() ? "another manifest" : text.status().ToString());
  }
  return absl::UnavailableError(absl::StrCat(
      "nobody gives the manifest of content ", content_id, ":", said));
}

absl::Status FetchingHost::CheckOwnFile(
    const Job& job, const ModelSource& source, const Manifest& manifest,
    std::shared_ptr<const ModelContent>* own, std::string* difference) {
  const absl::Time begin = absl::Now();
  ASSIGN_OR_RETURN(std::vector<ModelFile> files, source.OpenFiles());
  const std::vector<ManifestBlock> blocks = manifest.Blocks();
  const StageRange range = RangeOf(job.request);
  const std::vector<int> needed =
      BlocksOf(manifest, blocks, [&](const ManifestPart& part) {
        return part.name.empty() || source.NeedsTensor(part.name, range);
      });
  HashOptions options;
  options.n_threads = options_.n_hash_threads;
  options.memory = memory_;
  options.cancelled = [&] { return !StillWanted(job).ok(); };
  const absl::StatusOr<CheckedBlocks> checked =
      CheckModel(files, manifest, needed, options);
  // Of other sizes: nothing of it is of use.
  if (absl::IsFailedPrecondition(checked.status())) {
    *difference = std::string(checked.status().message());
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(checked.status());
  LOG(INFO) << "event=own_file_checked content=" << job.request.content_id
            << " bytes=" << BytesOf(blocks, needed)
            << " hashed_bytes=" << checked->hashed_bytes
            << " differing_blocks=" << checked->differing.size()
            << " seconds=" << absl::ToDoubleSeconds(absl::Now() - begin);
  *own = std::make_shared<const ModelContent>(std::move(files), manifest);
  if (!checked->differing.empty()) {
    const ManifestBlock& block = blocks[checked->differing[0]];
    *difference = absl::StrCat(
        PartText(manifest.files[block.file].parts[block.part]),
        " of this worker's file of model \"", job.request.model,
        "\" differs from the coordinator's, in ", checked->differing.size(),
        " of the ", needed.size(), " blocks that the stage needs");
    return absl::OkStatus();
  }
  absl::MutexLock lock(&mu_);
  for (const auto& content : own_contents_) {
    if (content->content_id() == (*own)->content_id()) return absl::OkStatus();
  }
  own_contents_.push_back(*own);
  return absl::OkStatus();
}

absl::StatusOr<FetchingHost::Checked> FetchingHost::FetchReplica(
    const Job& job, const std::string& manifest_text,
    const std::vector<std::shared_ptr<WeightSource>>& sources) {
  const absl::Time begin = absl::Now();
  const StageRequest& r = job.request;
  if (replica_ == nullptr || replica_->content_id() != r.content_id) {
    // The one before may be removed to make room; its stage goes first.
    HostOf("", nullptr);
    replica_source_.reset();
    replica_.reset();
    ASSIGN_OR_RETURN(replica_, cache_->Open(r.content_id, manifest_text));
  }
  const Manifest& manifest = replica_->manifest();
  const std::vector<ManifestBlock>& blocks = replica_->blocks();
  const std::vector<int> base = BaseBlocks(manifest, blocks);
  const auto cancelled = [&] { return !StillWanted(job).ok(); };
  // There will be about as many bytes to pack as there are to fetch; how many
  // that is, is known when the model is open.
  int64_t done_before = 0;
  const auto progress = [&](int64_t done, int64_t total) {
    if (replica_source_ == nullptr) total = manifest.part_bytes();
    job.observer->OnProgress(done_before + done, 2 * (done_before + total));
  };
  FetchReport report;
  const auto fetch = [&](const std::vector<int>& numbers) -> absl::Status {
    RETURN_IF_ERROR(cache_->Reserve(replica_.get(), numbers));
    ASSIGN_OR_RETURN(const FetchReport part,
                     FetchBlocks(replica_.get(), numbers, sources,
                                 options_.fetch, progress, cancelled));
    for (const auto& [name, bytes] : part.bytes_by_source) {
      report.bytes_by_source[name] += bytes;
    }
    report.rechecked_bytes += part.rechecked_bytes;
    done_before += BytesOf(blocks, numbers);
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(fetch(base));
  if (replica_source_ == nullptr) {
    ASSIGN_OR_RETURN(replica_source_, ModelSource::Open(replica_->path()));
  }
  if (replica_source_->fingerprint() != r.model_fingerprint) {
    return absl::FailedPreconditionError(absl::StrCat(
        "content ", r.content_id, " has fingerprint ",
        absl::Hex(replica_source_->fingerprint(), absl::kZeroPad16),
        ", not the ", absl::Hex(r.model_fingerprint, absl::kZeroPad16),
        " of the request"));
  }
  // Before gigabytes are on their way.
  RETURN_IF_ERROR(HostOf(r.model, replica_source_)->CheckRequest(r));
  const std::vector<int> needed =
      StageBlocks(manifest, blocks, *replica_source_, r);
  RETURN_IF_ERROR(fetch(needed));
  int64_t fetched_bytes = 0;
  std::string from;
  for (const auto& [name, bytes] : report.bytes_by_source) {
    fetched_bytes += bytes;
    absl::StrAppend(&from, from.empty() ? "" : ", ", name, ": ", bytes);
  }
  LOG(INFO) << "event=weights_fetched content=" << r.content_id
            << " layers=" << r.layer_begin << "-" << r.layer_end
            << " needed_bytes=" << done_before
            << " fetched_bytes=" << fetched_bytes
            << " rechecked_bytes=" << report.rechecked_bytes
            << " seconds=" << absl::ToDoubleSeconds(absl::Now() - begin)
            << " from=\"" << from << "\"";
  return Checked{replica_source_, done_before};
}

std::shared_ptr<StageHost> FetchingHost::HostOf(
    const std::string& model_name, std::shared_ptr<const ModelSource> source) {
  std::shared_ptr<StageHost> old;
  {
    absl::MutexLock lock(&mu_);
    if (host_ != nullptr && host_model_ == model_name &&
        host_source_ == source) {
      return host_;
    }
    old = std::move(host_);
    host_ = nullptr;
    host_source_.reset();
    if (old != nullptr) {
      past_steps_ += old->finished_step_count();
      past_progress_ += old->progress() + 1;
    }
  }
  if (old != nullptr) {
    old->Shutdown(absl::AbortedError("another model's stage has come"));
    old.reset();  // Its memory goes before the next one's is taken.
  }
  if (source == nullptr) return nullptr;
  std::shared_ptr<StageHost> host = make_host_(model_name, source);
  absl::MutexLock lock(&mu_);
  host_ = host;
  host_model_ = model_name;
  host_source_ = std::move(source);
  if (!shutdown_.ok()) host->Shutdown(shutdown_);
  return host;
}

std::shared_ptr<StageHost> FetchingHost::host() const {
  absl::MutexLock lock(&mu_);
  return host_;
}

absl::Status FetchingHost::StillWanted(const Job& job) const {
  {
    absl::MutexLock lock(&mu_);
    RETURN_IF_ERROR(shutdown_);
    if (epoch_ > job.request.epoch) {
      return absl::AbortedError(absl::StrCat(
          "epoch ", epoch_, " has replaced epoch ", job.request.epoch));
    }
  }
  if (job.observer->IsCancelled()) {
    return absl::CancelledError("nobody waits for this load any more");
  }
  return absl::OkStatus();
}

}  // namespace tern
