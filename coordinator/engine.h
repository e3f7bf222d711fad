#ifndef COORDINATOR_ENGINE_H_
#define COORDINATOR_ENGINE_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "coordinator/cluster_view.h"
#include "coordinator/kept_kv.h"
#include "coordinator/pipeline.h"
#include "coordinator/placement.h"
#include "coordinator/recut.h"
#include "coordinator/scheduler.h"
#include "coordinator/sequence.h"
#include "coordinator/stage_cut.h"
#include "coordinator/token_stream.h"
#include "model/model_config.h"
#include "util/bounded_queue.h"
#include "util/clock.h"

namespace tern {

// Start here: the heart of Tern.
//
// One thread owns all the state that requests share: which workers there are
// (ClusterView), the pipelines made of them, what runs next (Scheduler, with
// the KV blocks), and the token log of every sequence. Everyone else, gRPC
// threads and pipelines, puts a task into its bounded mailbox. The loop:
//
//   take tasks -> let leases and deadlines end -> form a pipeline while enough
//   workers are free -> send plans while there is something to run
//
// A pipeline that loses a worker is given up as a whole: every sequence on it
// goes back to waiting, and on the next pipeline that has room, an old or a new
// one, it is replayed from its token log and goes on with the tokens it would
// have had. Workers that get the same stage again keep their KV blocks, so that
// only those stages compute again that lost them (KeptKv). Each pipeline formed
// has a later epoch than all before it.
//
// Thread-safe.
class Engine {
 public:
  struct Options {
    std::string model;  // the name requests and workers use
    ModelConfig config;
    uint64_t model_fingerprint = 0;
    // Of the model's files; empty when it is not known, and then workers need
    // files of their own.
    std::string content_id;
    std::string head_mode = "int8";  // second half of the numerics id
    PlacementOptions placement;
    Scheduler::Options scheduler;
    ClusterView::Options cluster;  // without suspect_after: a few heartbeats
    RecutOptions recut;

    // How long requests wait for a lost pipeline to come back, when there is no
    // other that could take them, before they end with UNAVAILABLE; those that
    // come later, or before any pipeline has served, end so at once.
    absl::Duration unavailable_after = absl::Seconds(30);

    // Whether sequences go on with another arithmetic than they were begun
    // with, and say so, when no worker of theirs is left; otherwise they end,
    // and no such worker is let in while there are any.
    bool allow_numerics_change = false;

    // A worker that owes a step and has computed nothing for so long, or for
    // three times what the step should take, is taken for hung.
    absl::Duration hang_timeout = absl::Seconds(2);

    // The latest epoch given to a pipeline, of any engine: workers refuse
    // epochs that are not larger than those they have seen, from other engines
    // and earlier coordinators too. Null: one of its own, from 0.
    std::shared_ptr<std::atomic<int64_t>> last_epoch;

    // Sequences in progress, waiting and running, above which a new request is
    // refused before it reaches the engine thread. 0: what may wait, and what
    // 64 pipelines can run.
    int max_requests = 0;

    // Told the epoch of each pipeline that is formed, on the engine thread. May
    // be null.
    std::function<void(int64_t)> on_epoch;

    // Told when the first pipeline begins and when the last one ends to serve.
    // Called on the engine thread. May be null.
    std::function<void(bool)> on_readiness;
  };

  // A prompt to answer, once for each of `outputs`: sequences that differ in
  // their sample_index, which is their output's place.
  struct Request {
    std::string principal;   // whose `request_id` it is
    std::string request_id;  // unique among the principal's in progress
    SequenceParameters parameters;
    std::vector<std::shared_ptr<TokenStream>> outputs;  // at least one

    // Set for one that an earlier coordinator had admitted. It is not refused
    // now, and waits for a pipeline as if it had lost one; with another
    // arithmetic than `numerics_id` it ends with FAILED_PRECONDITION, unless
    // that is allowed.
    struct Restored {
      std::string numerics_id;
      // What each output had. Null ones of `outputs` had ended.
      std::vector<std::vector<int32_t>> tokens;
      int n_scored;  // see Scheduler::Restore()
    };
    std::optional<Restored> restored;
  };

  // Given to a registered worker.
  struct Lease {
    int64_t epoch = 0;
    absl::Duration duration;
    absl::Duration heartbeat_interval;
  };

  // A view of everything, at one moment.
  struct StageStatus {
    PlacedStage placed;
    Pipeline::StageInfo info;
    double load_progress = 0;
  };
  enum class Phase { kWaiting, kLoading, kReady };
  struct PipelineStatus {
    std::string id;
    int64_t epoch = 0;
    Phase phase = Phase::kLoading;  // or kReady
    std::vector<StageStatus> stages;
    int kv_block_count = 0;
    int kv_block_in_use_count = 0;
    int kv_block_cached_count = 0;
    bool keeps_boundary = false;  // see BoundaryKeeping
    int n_running = 0;
    Scheduler::Counters counters;
    // What is expected of it under the load it was cut for, with what is known
    // of its workers now, and how much faster it would be if it were cut anew.
    CutForecast forecast;
    double recut_gain = 0;
    int fullest_stage = 0;  // that has the least memory left for KV blocks
  };
  struct WorkerStatus {
    Worker worker;
    absl::Duration silence;
    std::string pipeline_id;        // where it has a stage, or empty
    int stage = -1;                 // which, or -1
    Phase phase = Phase::kWaiting;  // of the pipeline
    std::string why_idle;  // has no stage, though it may have one; for people
  };
  struct Snapshot {
    Phase phase = Phase::kWaiting;  // of the pipeline that is furthest
    std::string phase_text;         // for people: what is missing
    std::string numerics_id;        // empty before the first worker
    // The load that pipelines are cut for: sequences on each, and tokens of
    // context of each of these.
    int max_sequences = 0;
    int context_tokens = 0;
    std::vector<PipelineStatus> pipelines;
    int n_waiting = 0;
    int n_running = 0;
    Scheduler::Counters counters;
    std::vector<WorkerStatus> workers;  // in order of their ids
  };

  // Starts the thread. `clock` outlives the engine.
  Engine(Options options, PipelineFactory factory, Clock* clock);

  // Shutdown(), and waits for the thread.
  ~Engine();

  // Pipelines that serve, and the sequences that run on each at most: as many
  // as it makes sense to have in progress. Changes at any time.
  int n_serving() const { return n_ready_; }
  // Sequences submitted and not ended. Changes at any time.
  int n_in_progress() const { return n_requests_; }
  int max_sequences() const { return options_.scheduler.max_sequences; }

  // Numbers for the `n` sequences of a request, never used twice: the first of
  // them, the others follow it.
  int64_t NewTickets(int n) { return last_ticket_.fetch_add(n) + 1; }

  // Hands a request over. Whatever becomes of its sequences is told to their
  // outputs: ALREADY_EXISTS, UNAVAILABLE without a pipeline,
  // RESOURCE_EXHAUSTED, the same to all, or admission, of all, and tokens.
  // REQUIRES: `ticket` is from NewTickets() for as many as there are outputs,
  // and was not submitted before.
  void Submit(int64_t ticket, Request request);

  // A sequence is of no interest any more: drops it without telling its output.
  // Nothing happens when it has ended. The request ends with its last sequence.
  void Cancel(int64_t ticket);

  // Ends a request by name: its outputs end with CANCELLED. `done` gets
  // NOT_FOUND when it is not in progress. Callbacks of this and the following
  // methods run on the engine thread (on the caller's after Shutdown()) and
  // must not block.
  void Abort(std::string principal, std::string request_id,
             std::function<void(absl::Status)> done);

  void RegisterWorker(WorkerRegistration registration,
                      std::function<void(absl::StatusOr<Lease>)> done);
  // `done` hears whether a draining worker is released: has no stage any more.
  void SendHeartbeat(WorkerHeartbeat heartbeat,
                     std::function<void(absl::StatusOr<bool>)> done);

  // Lets a worker go to another engine: as soon as what it runs has moved
  // elsewhere, or ended where nobody else can take it, it is forgotten, and
  // hears NOT_FOUND with its next heartbeat.
  void ReleaseWorker(std::string worker_id);

  // Takes a worker out of service, or puts it back. `done` gets NOT_FOUND when
  // it is unknown.
  void SetCordoned(std::string worker_id, bool cordoned,
                   std::function<void(absl::Status)> done);

  void Inspect(std::function<void(absl::StatusOr<Snapshot>)> done);

  // Has the loop turn once: for those who moved the clock.
  void Poke();

  // What workers still hold of pipelines that an earlier coordinator had. To be
  // called before workers register.
  void RestoreKept(std::vector<KeptKv> kept);

  // What workers still hold. REQUIRES: Shutdown() has returned.
  std::vector<KeptKv> TakeKept();

  // Ends every request with UNAVAILABLE, gives the pipeline up, and refuses
  // everything from now on. Returns when it is done. May be called twice.
  void Shutdown();

 private:
  using Task = std::function<void()>;
  using Mailbox = BoundedQueue<Task>;

  using Name = std::pair<std::string, std::string>;  // principal, request id

  struct Live {
    Name name;
    std::shared_ptr<TokenStream> output;
    std::string numerics_id;  // that it has to have; empty for any
  };

  // A pipeline that loads or serves.
  struct Member {
    std::string id;
    int64_t epoch = 0;
    std::unique_ptr<Pipeline> pipeline;
    bool ready = false;        // it has loaded
    bool looks_ahead = false;  // steps are planned ahead, all workers can
    absl::Time ready_since;
    int n_recut_looks = 0;  // in a row that found that another cut pays
    // The stage that all wait for, and since when it has owed its part of the
    // oldest step in flight.
    int owing_stage = 0;
    absl::Time owes_since;
    std::vector<StageStatus> stages;
    int kv_block_count = 0;
    bool keeps_boundary = false;
    std::string numerics_id;
    std::vector<int64_t> incarnations;  // of the stages' workers
    // What its workers are asked to have kept, while it loads.
    std::optional<KeptKv> kept;
  };

  static ClusterView::Options ClusterOptionsOf(const Options& options);

  // False when the engine is shut down, or `task` is one that may be refused
  // and the mailbox is nearly full.
  bool Post(Task task, bool may_refuse);

  // All that follows runs on the engine thread.
  void Run();
  void Turn();
  void Stop();

  void Admit(int64_t ticket, Request request);
  void Restore(int64_t ticket, Request request);
  // Such as "cpu-1/int8".
  std::string NumericsId() const;
  // Ends those that another arithmetic has begun, or has them go on.
  void EndOthersNumerics();
  void Forget(int64_t ticket);
  // Takes what the events hold, and leaves the vector its memory.
  void Deliver(std::vector<SequenceEvent>&& events);
  void EndAll(const absl::Status& status);

  std::vector<const Worker*> FreeWorkers() const;
  bool MayFormPipeline() const;
  // Of the free workers.
  Placements PlaceFree() const;
  void FormPipelines();
  void FormPipeline(Placement placement);
  // Lets a pipeline go whose workers, or spares with them, would be faster with
  // another cut; it is formed again at once.
  void RecutPipelines();
  // Its workers, in the order of its stages. Empty when one is not known any
  // more.
  std::vector<PlacementCandidate> CandidatesOf(const Member& member) const;
  RecutForecast ForecastRecutOf(int index, const Member& member) const;
  void AddForecasts(Snapshot* snapshot) const;
  // What it takes along of an earlier one, and asks its workers to keep.
  std::vector<int64_t> AskForKept(Placement* placement, Member* member);
  std::optional<BlockManager> RecoverKept(
      const std::vector<Pipeline::StageInfo>& infos, Member* member) const;
  void KeepBlocks(const Member& member, BlockManager blocks);
  void OnPipelineReady(int index, std::vector<Pipeline::StageInfo> infos);
  void LosePipeline(int index, const absl::Status& why);
  void LosePipelineOf(const std::string& worker_id, const absl::Status& why);
  void OnStageLost(int index, int stage, const absl::Status& status);
  void NoteWhoOwes();
  void LoseHungPipelines();
  // Lets pipelines with a worker that wants to leave go.
  void DrainPipelines();
  // Forgets the workers released that have no stage any more.
  void ForgetReleased();
  // Whether it need not serve on.
  bool MayLeave(int index, const Member& member) const;
  bool IsDraining(const Member& member) const;
  // When the stage that all wait for has done nothing for too long;
  // InfiniteFuture when nothing is in flight.
  absl::Time HangsAt(int index, const Member& member) const;
  Pipeline::Listener ListenerOf(int index, int64_t epoch);
  // Of the pipeline that the worker has a stage in; -1 when it has none.
  int PipelineOf(const std::string& worker_id) const;
  absl::Status WhyNotReady() const;
  Snapshot MakeSnapshot() const;
  absl::Duration UntilNextDuty() const;

  absl::Status ShuttingDown() const;

  const Options options_;
  const std::shared_ptr<std::atomic<int64_t>> last_epoch_;
  const PipelineFactory factory_;
  Clock* const clock_;
  // Shared with pipelines, which may still speak when the engine is gone.
  const std::shared_ptr<Mailbox> mailbox_;
  const size_t mailbox_soft_capacity_;
  const int max_requests_;
  std::atomic<int64_t> last_ticket_{0};
  std::atomic<int> n_requests_{0};  // sequences submitted and not ended

  // Owned by the engine thread.
  Scheduler scheduler_;
  ClusterView cluster_;
  absl::flat_hash_map<int64_t, Live> live_;    // sequences, by ticket
  std::vector<SequenceEvent> events_;          // of a step; kept for its memory
  std::map<Name, std::set<int64_t>> tickets_;  // of sequences in progress
  absl::Time now_;
  std::map<int, Member> pipelines_;  // by their index for the scheduler
  KeptKvs kept_kvs_;                 // of lost ones
  std::atomic<int> n_ready_{0};      // of them that serve; read by anyone
  std::string numerics_id_;          // of the latest pipeline
  bool has_served_ = false;          // any pipeline, ever
  // Of a pipeline that served; or the start. Losses of pipelines that have
  // answered nothing of what they ran prolong no wait: the first of them
  // counts.
  absl::Time last_loss_;
  bool has_answered_ = true;   // any pipeline a step, since that loss
  absl::Status last_failure_;  // why a pipeline is missing, when known
  int n_failures_ = 0;         // to load, in a row
  // Those of each worker since it last served; who failed is asked last.
  std::map<std::string, int> load_failures_;
  absl::Time retry_at_ = absl::InfinitePast();
  bool has_released_ = false;  // workers not yet forgotten
  absl::Time last_recut_ = absl::InfinitePast();
  absl::Time recut_look_at_ = absl::InfinitePast();  // for one that pays
  bool stopped_ = false;

  absl::Mutex shutdown_mu_;
  std::thread thread_ ABSL_GUARDED_BY(shutdown_mu_);
};

}  // namespace tern

#endif  // COORDINATOR_ENGINE_H_
