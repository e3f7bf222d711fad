#include "bench/survival_rows.h"

#include <signal.h>
#include <stdlib.h>

#include <algorithm>
#include <iostream>
#include <map>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "bench/serving.h"
#include "bench/statistics.h"
#include "bench/timed_stream.h"
#include "client/cancellation.h"
#include "proto/tern/v1/inference.pb.h"
#include "util/status_macros.h"

namespace tern {
namespace {

constexpr absl::Duration kPoll = absl::Milliseconds(1);

double Seconds(absl::Duration duration) {
  return absl::ToDoubleSeconds(duration);
}

bool HasStage(const v1::Worker& worker) {
  return worker.state() == v1::WORKER_STATE_READY;
}

bool IsGone(const v1::Worker& worker) {
  return worker.state() == v1::WORKER_STATE_LOST ||
         worker.state() == v1::WORKER_STATE_HUNG;
}

}  // namespace

const std::vector<SurvivalBench::Row>& SurvivalBench::Rows() {
  static const std::vector<Row>* const rows =
      new std::vector<Row>{{"death", &SurvivalBench::Death},
                           {"hang", &SurvivalBench::Hang},
                           {"replay", &SurvivalBench::Replay},
                           {"drain", &SurvivalBench::Drain},
                           {"join", &SurvivalBench::Join},
                           {"both", &SurvivalBench::Both},
                           {"coordinator", &SurvivalBench::CoordinatorDeath}};
  return *rows;
}

std::vector<std::string> SurvivalBench::Names() {
  std::vector<std::string> names;
  for (const Row& row : Rows()) names.push_back(row.name);
  return names;
}

absl::StatusOr<EngineReport> SurvivalBench::Run(
    const std::set<std::string>& names) {
  double busy[1] = {0};
  if (getloadavg(busy, 1) < 1) busy[0] = 0;
  for (const Row& row : Rows()) {
    if (names.count(row.name) == 0) continue;
    row_ = row.name;
    absl::Status measured = (this->*row.measure)();
    progress_.Clear();
    if (!measured.ok()) {
      return absl::Status(
          measured.code(),
          absl::StrCat("row ", row.name, ": ", measured.message(),
                       servers_ == nullptr ? "" : servers_->Logs()));
    }
    client_.reset();
    servers_.reset();
    for (const EngineFigure& figure : report_.figures) {
      if (figure.row == row_) std::cerr << LineOf(figure) << std::endl;
    }
  }
  if (n_compared_ > 0) {
    row_ = "exact";
    EngineFigure figure;
    figure.what = "streams that lost, changed or repeated a token";
    figure.decimals = 0;
    figure.measured = static_cast<double>(n_changed_);
    figure.more_is_better = false;
    figure.target = 0;
    figure.detail =
        absl::StrCat(n_compared_, " streams compared with undisturbed ones");
    Add(figure);
  }
  report_.settings = {
      {"machine",
       absl::StrFormat("%d processors; load average %.1f when it began",
                       std::thread::hardware_concurrency(), busy[0])},
      {"model", options_.model_file},
      {"figures", absl::StrCat("medians of ", options_.rounds,
                               options_.rounds == 1 ? " round" : " rounds")}};
  return report_;
}

void SurvivalBench::Say(int round) {
  progress_.Show(
      absl::StrCat(row_, ": round ", round + 1, " of ", options_.rounds));
}

absl::Status SurvivalBench::Start(int n_stages, int n_workers,
                                  std::vector<std::string> worker_flags,
                                  bool with_journal) {
  LocalServers::Options options;
  options.model_file = options_.model_file;
  options.n_stages = n_stages;
  options.n_workers = n_workers;
  options.worker_flags = std::move(worker_flags);
  options.journal = with_journal;
  ASSIGN_OR_RETURN(servers_, LocalServers::Start(options));
  ClientOptions connection;
  connection.server = servers_->address();
  connection.max_attempts = 1;
  connection.default_deadline = options_.wait;
  ASSIGN_OR_RETURN(client_, Client::Create(connection));
  if (n_workers == 0) return absl::OkStatus();
  Cancellation cancellation;
  ASSIGN_OR_RETURN(const v1::Model model,
                   AwaitModel(connection, "", options_.wait, &cancellation));
  vocab_size_ = model.vocab_size();
  const int n_tokens = options_.prompt_tokens + kStreamTokens;
  if (model.context_length() < n_tokens) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--prompt_tokens and ", kStreamTokens, " more are ", n_tokens,
        " tokens; the model's context holds ", model.context_length()));
  }
  return AwaitAll(n_workers);
}

absl::StatusOr<v1::ListWorkersResponse> SurvivalBench::Workers() {
  return client_->ListWorkers();
}

absl::StatusOr<std::string> SurvivalBench::BusyWorker() {
  v1::GetModelRequest which;
  ASSIGN_OR_RETURN(const v1::GetModelResponse described,
                   client_->GetModel(which));
  for (const v1::Pipeline& pipeline : described.model().pipelines()) {
    if (pipeline.running_count() > 0) return pipeline.stages(0).worker_id();
  }
  return std::string();
}

int SurvivalBench::Find(const v1::ListWorkersResponse& workers,
                        const std::function<bool(const v1::Worker&)>& fits) {
  for (int i = 0; i < workers.workers_size(); ++i) {
    if (fits(workers.workers(i))) return i;
  }
  return -1;
}

absl::StatusOr<absl::Time> SurvivalBench::Await(
    const std::function<bool(const v1::ListWorkersResponse&)>& is_true) {
  const absl::Time deadline = absl::Now() + options_.wait;
  while (true) {
    ASSIGN_OR_RETURN(const v1::ListWorkersResponse workers, Workers());
    const absl::Time now = absl::Now();
    if (is_true(workers)) return now;
    if (now > deadline) {
      return absl::DeadlineExceededError(
          absl::StrCat("the workers are not where they should be after ",
                       absl::FormatDuration(options_.wait)));
    }
    absl::SleepFor(kPoll);
  }
}

absl::Status SurvivalBench::Cordon(int worker, bool cordoned) {
  ASSIGN_OR_RETURN(const v1::ListWorkersResponse workers, Workers());
  v1::CordonWorkerRequest request;
  request.set_worker_id(workers.workers(worker).worker_id());
  request.set_cordoned(cordoned);
  RETURN_IF_ERROR(client_->CordonWorker(request));
  if (!cordoned) return absl::OkStatus();
  return Await([worker](const v1::ListWorkersResponse& workers) {
           return !HasStage(workers.workers(worker));
         })
      .status();
}

absl::Status SurvivalBench::AwaitAll(int n) {
  return Await([n](const v1::ListWorkersResponse& workers) {
           int n_usable = 0;
           for (const v1::Worker& worker : workers.workers()) {
             n_usable +=
                 HasStage(worker) || worker.state() == v1::WORKER_STATE_IDLE;
           }
           return n_usable >= n;
         })
      .status();
}

absl::StatusOr<std::vector<SurvivalBench::Loss>> SurvivalBench::LoseStages(
    int signal, const std::function<absl::Status(int worker)>& after) {
  RETURN_IF_ERROR(Start(2, 3, {"--threads=1"}));
  std::vector<Loss> losses;
  for (int round = 0; round < options_.rounds; ++round) {
    Say(round);
    const uint64_t seed = round + 1;
    TimedStream alone(client_.get(), options_.prompt_tokens, kStreamTokens,
                      vocab_size_, seed);
    RETURN_IF_ERROR(alone.AwaitEnd());
    TimedStream stream(client_.get(), options_.prompt_tokens, kStreamTokens,
                       vocab_size_, seed);
    stream.AwaitTokens(kStreamTokensBefore);
    ASSIGN_OR_RETURN(const v1::ListWorkersResponse workers, Workers());
    const int victim = Find(workers, [round](const v1::Worker& worker) {
      return HasStage(worker) && worker.stage_index() == round % 2;
    });
    if (victim < 0) return absl::InternalError("nobody has the stage");
    const absl::Time begin = absl::Now();
    servers_->worker(victim).Signal(signal);
    ASSIGN_OR_RETURN(const absl::Time detected,
                     Await([victim](const v1::ListWorkersResponse& workers) {
                       return IsGone(workers.workers(victim));
                     }));
    RETURN_IF_ERROR(stream.AwaitEnd());
    losses.push_back(
        {detected - begin,
         std::max(absl::ZeroDuration(), stream.GoesOnAfter(begin) - detected)});
    ++n_compared_;
    n_changed_ += stream.tokens() != alone.tokens();
    RETURN_IF_ERROR(after(victim));
    RETURN_IF_ERROR(AwaitAll(3));
  }
  return losses;
}

// Loading its stage is what another model's stream waits for.
absl::optional<double> SurvivalBench::ResumeTarget() const {
  if (options_.own_model) return absl::nullopt;
  return 2;
}

absl::Status SurvivalBench::Death() {
  const auto start_again = [this](int worker) -> absl::Status {
    RETURN_IF_ERROR(servers_->worker(worker).Wait(absl::Seconds(10)).status());
    RETURN_IF_ERROR(servers_->StartWorker(worker));
    // It is not the old one that is seen.
    return Await([worker](const v1::ListWorkersResponse& workers) {
             return !IsGone(workers.workers(worker));
           })
        .status();
  };
  ASSIGN_OR_RETURN(const std::vector<Loss> losses,
                   LoseStages(SIGKILL, start_again));
  std::vector<double> detected, resumed;
  for (const Loss& loss : losses) {
    detected.push_back(Seconds(loss.detected));
    resumed.push_back(Seconds(loss.resumed));
  }
  EngineFigure figure;
  figure.what = "until a dead process is noticed";
  figure.unit = "s";
  figure.decimals = 3;
  figure.more_is_better = false;
  figure.measured = Median(detected);
  figure.target = 1;
  figure.aim = 0.05;
  Add(figure);
  figure.what = absl::StrCat("from then until its stream goes on, ",
                             options_.prompt_tokens, " tokens of prompt");
  figure.measured = Median(resumed);
  figure.target = ResumeTarget();
  figure.aim = {};
  figure.detail = "the spare loads the stage, the sequence is replayed";
  Add(figure);
  return absl::OkStatus();
}

absl::Status SurvivalBench::Hang() {
  const auto wake = [this](int worker) -> absl::Status {
    servers_->worker(worker).Signal(SIGCONT);
    return absl::OkStatus();
  };
  ASSIGN_OR_RETURN(const std::vector<Loss> losses, LoseStages(SIGSTOP, wake));
  std::vector<double> detected, resumed;
  for (const Loss& loss : losses) {
    detected.push_back(Seconds(loss.detected));
    resumed.push_back(Seconds(loss.resumed));
  }
  EngineFigure figure;
  figure.what = "until a process that stands still is noticed";
  figure.unit = "s";
  figure.more_is_better = false;
  figure.measured = Median(detected);
  figure.target = 2.5;
  figure.detail = "--hang_timeout is 2 s, heartbeats come every 0.5 s";
  Add(figure);
  figure.what = "from then until its stream goes on";
  figure.decimals = 3;
  figure.measured = Median(resumed);
  figure.target = ResumeTarget();
  figure.detail = {};
  Add(figure);
  return absl::OkStatus();
}

absl::Status SurvivalBench::Replay() {
  RETURN_IF_ERROR(Start(1, 2, {"--threads=1"}));
  std::vector<double> shares, replays, prefills;
  for (int round = 0; round < options_.rounds; ++round) {
    Say(round);
    const uint64_t seed = 100 + round;
    TimedStream stream(client_.get(), options_.prompt_tokens, kStreamTokens,
                       vocab_size_, seed);
    stream.AwaitTokens(kStreamTokensBefore);
    ASSIGN_OR_RETURN(const std::string runs_it, BusyWorker());
    ASSIGN_OR_RETURN(const v1::ListWorkersResponse workers, Workers());
    const int victim = Find(workers, [&runs_it](const v1::Worker& worker) {
      return worker.worker_id() == runs_it;
    });
    if (victim < 0) {
      return absl::DeadlineExceededError(
          "the stream was over before its worker could be killed; take a "
          "larger model, or more --prompt_tokens");
    }
    const size_t n_before = stream.tokens().size();
    const absl::Time killed = absl::Now();
    servers_->worker(victim).Signal(SIGKILL);
    ASSIGN_OR_RETURN(const absl::Time detected,
                     Await([victim](const v1::ListWorkersResponse& workers) {
                       return IsGone(workers.workers(victim));
                     }));
    RETURN_IF_ERROR(stream.AwaitEnd());
    const double n_replayed =
        options_.prompt_tokens + static_cast<double>(n_before);
    const double replay = Seconds(stream.GoesOnAfter(killed) - detected);
    const double prefill = Seconds(stream.first_token());
    replays.push_back(replay);
    prefills.push_back(prefill);
    shares.push_back(replay / n_replayed * options_.prompt_tokens / prefill);
    RETURN_IF_ERROR(servers_->worker(victim).Wait(absl::Seconds(10)).status());
    RETURN_IF_ERROR(servers_->StartWorker(victim));
    RETURN_IF_ERROR(Await([](const v1::ListWorkersResponse& workers) {
                      return Find(workers, [](const v1::Worker& worker) {
                               return !HasStage(worker);
                             }) < 0;
                    }).status());
    TimedStream alone(client_.get(), options_.prompt_tokens, kStreamTokens,
                      vocab_size_, seed);
    RETURN_IF_ERROR(alone.AwaitEnd());
    ++n_compared_;
    n_changed_ += stream.tokens() != alone.tokens();
  }
  EngineFigure figure;
  figure.what = "a token replayed elsewhere against one of its prompt";
  figure.unit = "x";
  figure.more_is_better = false;
  figure.measured = Median(shares);
  figure.target = 1;
  figure.limit = "1 x";
  figure.detail = absl::StrFormat(
      "%.3f s from the loss until the stream goes on, %.3f s until its first "
      "token",
      Median(replays), Median(prefills));
  Add(figure);
  return absl::OkStatus();
}

absl::Status SurvivalBench::Drain() {
  const int n_prompt = std::min(64, options_.prompt_tokens);
  // The demo model's are over soon.
  const int n_tokens =
      options_.own_model ? 2 * kStreamTokens : 4 * kStreamTokens;
  std::vector<double> left, went_on, wanted;
  for (int round = 0; round < options_.rounds; ++round) {
    Say(round);
    RETURN_IF_ERROR(Start(1, 2, {"--threads=1"}));
    // All on the first worker before the second has a stage.
    RETURN_IF_ERROR(Cordon(1, true));
    TimedStream probe(client_.get(), options_.prompt_tokens, 1, vocab_size_,
                      1000 + round);
    RETURN_IF_ERROR(probe.AwaitEnd());
    const double prefill_rate =
        options_.prompt_tokens / Seconds(probe.first_token());
    std::vector<std::unique_ptr<TimedStream>> streams;
    const auto begin_all = [&] {
      for (int i = 0; i < options_.streams; ++i) {
        streams.push_back(std::make_unique<TimedStream>(
            client_.get(), n_prompt, n_tokens, vocab_size_, 2000 + i));
      }
    };
    begin_all();
    for (const auto& stream : streams) stream->AwaitTokens(1);
    RETURN_IF_ERROR(Cordon(1, false));
    RETURN_IF_ERROR(Await([](const v1::ListWorkersResponse& workers) {
                      return workers.workers_size() == 2 &&
                             HasStage(workers.workers(1));
                    }).status());
    int64_t n_replayed = 0;
    for (const auto& stream : streams) {
      n_replayed += n_prompt + static_cast<int64_t>(stream->tokens().size());
    }
    const absl::Time begin = absl::Now();
    servers_->worker(0).Signal(SIGTERM);
    RETURN_IF_ERROR(servers_->worker(0).Wait(options_.wait).status());
    left.push_back(Seconds(absl::Now() - begin));
    absl::Time last_on = begin;
    std::vector<std::vector<int32_t>> tokens;
    for (const auto& stream : streams) {
      RETURN_IF_ERROR(stream->AwaitEnd());
      last_on = std::max(last_on, stream->GoesOnAfter(begin));
      tokens.push_back(stream->tokens());
    }
    went_on.push_back(Seconds(last_on - begin));
    wanted.push_back(options_.own_model
                         ? static_cast<double>(n_replayed) / prefill_rate + 1
                         : 5);
    streams.clear();
    begin_all();
    for (size_t i = 0; i < streams.size(); ++i) {
      RETURN_IF_ERROR(streams[i]->AwaitEnd());
      ++n_compared_;
      n_changed_ += streams[i]->tokens() != tokens[i];
    }
    streams.clear();
  }
  EngineFigure figure;
  figure.what = absl::StrCat("until a worker with ", options_.streams,
                             " streams has left after SIGTERM");
  figure.unit = "s";
  figure.more_is_better = false;
  figure.measured = Median(left);
  figure.target = Median(wanted);
  Add(figure);
  figure.what = "until the last of them goes on elsewhere";
  figure.measured = Median(went_on);
  if (options_.own_model) {
    figure.detail =
        "wanted: what they have at the measured prefill rate, + 1 s";
  }
  Add(figure);
  return absl::OkStatus();
}

absl::Status SurvivalBench::Join() {
  std::vector<double> beyond, loads;
  for (int round = 0; round < options_.rounds; ++round) {
    Say(round);
    RETURN_IF_ERROR(Start(1, 0, {"--threads=1"}));
    const absl::Time begin = absl::Now();
    RETURN_IF_ERROR(servers_->StartWorker(0));
    ASSIGN_OR_RETURN(const absl::Time loading,
                     Await([](const v1::ListWorkersResponse& workers) {
                       return Find(workers, [](const v1::Worker& worker) {
                                return worker.stage_index() == 0 &&
                                       !worker.pipeline_id().empty();
                              }) >= 0;
                     }));
    ASSIGN_OR_RETURN(const absl::Time ready,
                     Await([](const v1::ListWorkersResponse& workers) {
                       return Find(workers, HasStage) >= 0;
                     }));
    // Tokens that every vocabulary has.
    TimedStream stream(client_.get(), 1, 1, /*vocab_size=*/1, 1);
    RETURN_IF_ERROR(stream.AwaitEnd());
    loads.push_back(Seconds(ready - loading));
    beyond.push_back(Seconds(absl::Now() - begin) - loads.back());
  }
  EngineFigure figure;
  figure.what = "from a worker's start to its first token, but for loading";
  figure.unit = "s";
  figure.more_is_better = false;
  figure.measured = Median(beyond);
  figure.target = 1;
  figure.detail =
      absl::StrFormat("%.2f s of loading come on top", Median(loads));
  Add(figure);
  return absl::OkStatus();
}

}  // namespace tern
