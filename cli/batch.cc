#include "cli/batch.h"

#include <cmath>
#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "cli/batch_input.h"
#include "cli/batch_output.h"
#include "cli/connection.h"
#include "cli/generation_flags.h"
#include "cli/model_flag.h"
#include "cli/progress_line.h"
#include "cli/readiness.h"
#include "cli/report.h"
#include "client/cancellation.h"
#include "client/client.h"
#include "proto/tern/v1/inference.pb.h"
#include "util/clock.h"
#include "util/credential_flags.h"
#include "util/status_macros.h"

ABSL_FLAG(int, max_attempts, 20,
          "Most times to connect or send again without a single new result, at "
          "least 1. Pauses grow to 10 seconds: 20 times are a minute or two.");
ABSL_FLAG(bool, quiet, false, "Says nothing on stderr but errors.");

namespace tern {
namespace {

constexpr absl::Duration kBackoffMax = absl::Seconds(10);
constexpr absl::Duration kTerminalInterval = absl::Milliseconds(100);
constexpr absl::Duration kLogInterval = absl::Seconds(10);
constexpr int kBarWidth = 20;

std::string Rounded(absl::Duration duration) {
  const absl::Duration unit =
      duration < absl::Seconds(1)    ? absl::Milliseconds(1)
      : duration < absl::Seconds(10) ? absl::Milliseconds(100)
                                     : absl::Seconds(1);
  return absl::FormatDuration(absl::Trunc(duration, unit));
}

// How far it is, on stderr.
class Progress {
 public:
  // Of `n_prompts`, `n_before` had a result when this run began.
  Progress(int64_t n_prompts, int64_t n_before, bool quiet)
      : n_prompts_(n_prompts),
        n_before_(n_before),
        quiet_(quiet),
        start_(Clock::System()->Now()),
        shown_at_(start_) {}

  void Add(const v1::BatchGenerateResponse& result) {
    ++n_new_;
    n_errors_ += result.has_error();
    n_tokens_ += result.response().usage().output_token_count();
    const absl::Time now = Clock::System()->Now();
    if (quiet_ || now - shown_at_ < (line_.on_terminal() ? kTerminalInterval
                                                         : kLogInterval)) {
      return;
    }
    shown_at_ = now;
    line_.Show(Line(now - start_));
  }

  // Something that is not progress.
  void Say(absl::string_view text) {
    if (quiet_) return;
    line_.Clear();
    std::cerr << "tern: " << text << std::endl;
  }

  // What there was in all.
  void End() {
    line_.Clear();
    if (quiet_) return;
    const absl::Duration spent = Clock::System()->Now() - start_;
    const double seconds = absl::ToDoubleSeconds(spent);
    std::string text =
        absl::StrCat(n_done(), " of ", n_prompts_, " prompts have a result");
    if (n_before_ > 0) absl::StrAppend(&text, ", ", n_before_, " from before");
    if (n_new_ > 0 && seconds > 0) {
      absl::StrAppendFormat(
          &text, "; %d new ones in %s: %.1f prompts/s, %.1f tokens/s", n_new_,
          Rounded(spent), n_new_ / seconds, n_tokens_ / seconds);
    }
    std::cerr << text << std::endl;
  }

  int64_t n_missing() const { return n_prompts_ - n_done(); }
  int64_t n_errors() const { return n_errors_; }

 private:
  int64_t n_done() const { return n_before_ + n_new_; }

  std::string Line(absl::Duration spent) const {
    const double share = static_cast<double>(n_done()) / n_prompts_;
    std::string line;
    if (line_.on_terminal()) {
      const int n_full = static_cast<int>(share * kBarWidth);
      line = absl::StrCat("[", std::string(n_full, '#'),
                          std::string(kBarWidth - n_full, '.'), "] ");
    }
    absl::StrAppendFormat(&line, "%d/%d %.0f%%, %.1f tokens/s", n_done(),
                          n_prompts_, std::floor(share * 100),
                          n_tokens_ / absl::ToDoubleSeconds(spent));
    if (n_errors_ > 0) {
      absl::StrAppend(&line, ", ", n_errors_,
                      n_errors_ == 1 ? " error" : " errors");
    }
    return absl::StrCat(line, ", ", Rounded(spent / n_new_ * n_missing()),
                        " left");
  }

  const int64_t n_prompts_;
  const int64_t n_before_;
  const bool quiet_;
  const absl::Time start_;
  absl::Time shown_at_;
  ProgressLine line_;
  int64_t n_new_ = 0;
  int64_t n_errors_ = 0;
  int64_t n_tokens_ = 0;
};

// The ids of the prompts that are sent and not answered. Thread-safe.
class IdsInProgress {
 public:
  // Returns the index to send it under.
  int64_t Add(std::string id) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    ids_[n_added_] = std::move(id);
    return n_added_++;
  }

  std::string Take(int64_t index) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return std::move(ids_.extract(index).mapped());
  }

 private:
  absl::Mutex mu_;
  absl::flat_hash_map<int64_t, std::string> ids_ ABSL_GUARDED_BY(mu_);
  int64_t n_added_ ABSL_GUARDED_BY(mu_) = 0;
};

// Sends what has no result yet, and writes the results.
absl::Status Send(const ClientOptions& options, const std::string& model,
                  BatchInput* input, BatchOutput* output, Progress* progress) {
  Cancellation* const cancellation = CancelledByUser();
  ASSIGN_OR_RETURN(const std::unique_ptr<Client> client,
                   Client::Create(options));
  if (WaitFromFlag() > absl::ZeroDuration()) {
    RETURN_IF_ERROR(
        WaitUntilReady(client.get(), model, WaitFromFlag(), cancellation));
  }
  CallOptions call;
  call.cancellation = cancellation;
  call.on_retry = [&](const absl::Status& status, absl::Duration pause) {
    progress->Say(
        absl::StrCat(status.ToString(), "; trying again in ", Rounded(pause)));
  };
  // A model that is not there would be the error of every prompt.
  v1::GetModelRequest get_model;
  get_model.set_model(model);
  RETURN_IF_ERROR(client->GetModel(get_model, call).status());

  IdsInProgress ids;
  absl::Status read;     // of the writing thread, until the call returns
  absl::Status written;  // of this one
  BatchPrompt prompt;
  const absl::Status status = client->BatchGenerate(
      [&](v1::BatchGenerateRequest* request) {
        for (;;) {
          const absl::StatusOr<bool> has_prompt = input->Next(&prompt);
          read = has_prompt.status();
          if (!read.ok() || !*has_prompt) return false;
          if (!output->Has(prompt.id)) break;
        }
        request->mutable_request()->Swap(&prompt.request);
        request->set_index(ids.Add(std::move(prompt.id)));
        return true;
      },
      [&](const v1::BatchGenerateResponse& result) {
        written = output->Append(ResultLine(ids.Take(result.index()), result));
        if (written.ok()) progress->Add(result);
        return written.ok();
      },
      call);
  RETURN_IF_ERROR(written);
  RETURN_IF_ERROR(status);
  RETURN_IF_ERROR(read);
  if (progress->n_missing() > 0) {
    return absl::FailedPreconditionError(
        "the file of prompts was changed while it was read");
  }
  return absl::OkStatus();
}

ExitCode Run(const Arguments& arguments) {
  if (arguments.positional.size() != 2) {
    return ReportUsage("batch",
                       "a file of prompts and a file for their results were "
                       "expected; - is stdin or stdout");
  }
  const std::string in_path = arguments.positional[0];
  const std::string out_path = arguments.positional[1];
  ClientOptions options = ClientOptionsFromFlags();
  options.max_attempts = absl::GetFlag(FLAGS_max_attempts);
  options.backoff_max = kBackoffMax;
  if (options.max_attempts < 1) {
    return ReportUsage("batch", "--max_attempts must be at least 1");
  }
  // Files that cannot be used are as wrong as other words of the command line.
  const auto refuse = [&options](const absl::Status& status) {
    return absl::IsInvalidArgument(status)
               ? ReportUsage("batch", std::string(status.message()))
               : Report(status, options.server);
  };
  v1::GenerateRequest defaults;
  defaults.set_model(ModelFromFlag());
  const absl::Status valid = SetGenerationParameters(arguments, &defaults);
  if (!valid.ok()) return refuse(valid);

  Cancellation* const cancellation = CancelledByUser();
  const auto input = BatchInput::Open(in_path, defaults, *cancellation);
  if (!input.ok()) return refuse(input.status());
  if (out_path != "-" && (*input)->IsFile(out_path)) {
    return ReportUsage("batch",
                       absl::StrCat("the results cannot go to ", out_path,
                                    ": the prompts are there"));
  }
  const auto output = BatchOutput::Open(out_path);
  if (!output.ok()) return refuse(output.status());
  int64_t n_prompts = 0;
  int64_t n_before = 0;
  const absl::Status checked =
      (*input)->Check(*cancellation, [&](const std::string& id) {
        ++n_prompts;
        n_before += (*output)->Has(id);
      });
  if (!checked.ok()) return refuse(checked);

  Progress progress(n_prompts, n_before, absl::GetFlag(FLAGS_quiet));
  if ((*output)->n_finished() > n_before) {
    progress.Say(
        absl::StrCat(out_path, " has ", (*output)->n_finished() - n_before,
                     " results more, of ids that are not in ", in_path));
  }
  absl::Status status;
  if (n_before < n_prompts) {
    status =
        Send(options, defaults.model(), input->get(), output->get(), &progress);
  }
  status.Update((*output)->Sync());
  progress.End();
  if (!status.ok()) {
    const ExitCode code = Report(status, options.server);
    std::cerr << "tern: " << progress.n_missing() << " of " << n_prompts
              << " prompts have no result"
              << (out_path == "-"
                      ? ""
                      : "; running the same command again goes on with them")
              << std::endl;
    return code;
  }
  const int64_t n_errors = (*output)->n_errors() + progress.n_errors();
  if (n_errors > 0) {
    std::cerr << "tern: " << n_errors << " of the results are errors"
              << std::endl;
    return kExitFailed;
  }
  return kExitOk;
}

}  // namespace

Command BatchCommand() {
  return {"batch",
          "answer a file of prompts",
          R"(usage: tern batch [FLAGS] PROMPTS.jsonl RESULTS.jsonl
       tern batch [FLAGS] - -

Sends every prompt of a file to the cluster and appends each result to another
file as soon as it is there, in any order. A run that ended before the last
result, for whatever reason, goes on when the same command is run again: what
has a result is not sent again, and no result is written twice. A broken
connection or a cluster without workers is tried again (--max_attempts).

Each line of the prompts is a JSON object:

  {"id": "a", "prompt": "Once upon a time"}
  {"prompt": "O Romeo,", "stopping": {"max_output_tokens": 20}}
  {"token_ids": [1, 2, 3], "sampling": {"temperature": 0, "sample_count": 2}}
  {"messages": [{"role": "user", "content": "Hello"}], "priority": 5}

It has an id of its own (left out: the number of the line), a prompt in one of
three ways, and may set fields of sampling, stopping, response_options (such as
{"logprobs": 0, "return_token_ids": true}) and priority, which have the names
of GenerateRequest in proto/tern/v1/inference.proto and go before the flags
here. The whole file is checked before the first prompt is sent. From a pipe (-)
it is read to its end first.

Each line of the results is a JSON object:

  {"id":"a","text":"...","finish_reason":"stop","usage":{...}}
  {"id":"3","candidates":[{"index":0,"text":...},...],"usage":{...}}
  {"id":"4","error":{"code":"INVALID_ARGUMENT","message":"..."}}

An error is the prompt's result when it would be the same next time. To have
such prompts sent again, take their lines out of the results:

  grep -v '"error":{' RESULTS.jsonl > GOOD.jsonl

A result on stdout (-) is not known to a later run. Ctrl-C ends the run; what
is in the file of results by then stays. Ends with 1 when some results are
errors.
)",
          {"cli/batch.cc", kGenerationFlagsFile, kModelFlagFile,
           kConnectionFlagsFile, kCredentialFlagsFile},
          &Run};
}

}  // namespace tern
