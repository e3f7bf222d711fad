#include "worker/hidden_states_inbox.h"

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "util/crc32c.h"
#include "util/logging.h"
#include "util/status_macros.h"

namespace tern {

HiddenStatesInbox::HiddenStatesInbox(const Options& options)
    : TransferInbox("hidden states"), options_(options) {
  CHECK(options.hidden_size > 0 && options.max_step_tokens > 0 &&
        options.waiting_steps_max > 0);
}

absl::StatusOr<bool> HiddenStatesInbox::Offer(const HiddenStatesSlice& slice,
                                              std::function<void()> on_room) {
  // Outside the lock: it reads every byte.
  if (Crc32c(slice.data.data(), slice.data.size()) != slice.crc32c) {
    return absl::DataLossError(
        absl::StrCat("the checksum of a slice of the hidden states of step ",
                     slice.step_id, " is wrong, at byte ", slice.offset_bytes));
  }
  absl::MutexLock lock(&mu_);
  RETURN_IF_ERROR(closed_);
  RETURN_IF_ERROR(Check(slice));
  if (filled_bytes_ == 0) {
    if (ready_.size() >= static_cast<size_t>(options_.waiting_steps_max)) {
      on_room_ = std::move(on_room);
      return false;
    }
    if (!spare_.empty()) {
      partial_.values = std::move(spare_.back());
      spare_.pop_back();
    }
    partial_.step_id = slice.step_id;
    partial_.values.resize(slice.n_tokens * slice.hidden_size);
    last_step_id_ = slice.step_id;
  }
  std::memcpy(reinterpret_cast<char*>(partial_.values.data()) + filled_bytes_,
              slice.data.data(), slice.data.size());
  filled_bytes_ += slice.data.size();
  if (filled_bytes_ == static_cast<size_t>(slice.total_bytes)) {
    ready_.push_back(std::move(partial_));
    partial_ = Tensor();
    filled_bytes_ = 0;
    ++step_count_;
  }
  return true;
}

absl::Status HiddenStatesInbox::Check(const HiddenStatesSlice& slice) const {
  const auto wrong = [&slice](const auto&... what) {
    return absl::DataLossError(absl::StrCat("the hidden states of step ",
                                            slice.step_id, " ", what...));
  };
  if (slice.hidden_size != options_.hidden_size || slice.n_tokens < 1 ||
      slice.n_tokens > options_.max_step_tokens) {
    return wrong("have shape [", slice.n_tokens, ", ", slice.hidden_size,
                 "]; this stage takes [up to ", options_.max_step_tokens, ", ",
                 options_.hidden_size, "]");
  }
  const int64_t total_bytes =
      slice.n_tokens * slice.hidden_size * static_cast<int64_t>(sizeof(float));
  if (slice.total_bytes != total_bytes) {
    return wrong("claim ", slice.total_bytes, " bytes; their shape has ",
                 total_bytes);
  }
  const int64_t filled = static_cast<int64_t>(filled_bytes_);
  if (filled > 0) {
    if (slice.step_id != partial_.step_id ||
        static_cast<size_t>(slice.n_tokens * slice.hidden_size) !=
            partial_.values.size()) {
      return wrong("begin before those of step ", partial_.step_id,
                   " are whole");
    }
  } else if (slice.step_id <= last_step_id_) {
    return wrong("come after those of step ", last_step_id_);
  }
  if (slice.offset_bytes != filled) {
    return wrong("have a slice at byte ", slice.offset_bytes, " where byte ",
                 filled, " is next");
  }
  const int64_t size = static_cast<int64_t>(slice.data.size());
  if (size == 0 || size > total_bytes - filled) {
    return wrong("have a slice of ", size, " bytes where ",
                 total_bytes - filled, " are left");
  }
  return absl::OkStatus();
}

absl::Status HiddenStatesInbox::Take(int64_t step_id, int n_tokens,
                                     absl::Duration timeout,
                                     std::vector<float>* hidden) {
  std::function<void()> on_room;
  const auto take = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) -> absl::Status {
    const absl::Time deadline = absl::Now() + timeout;
    while (true) {
      if (!mu_.AwaitWithDeadline(
              absl::Condition(this, &HiddenStatesInbox::SomethingForRunner),
              deadline)) {
        return absl::UnavailableError(absl::StrCat(
            "the hidden states of step ", step_id, " did not come within ",
            absl::FormatDuration(timeout), " from the stage before"));
      }
      RETURN_IF_ERROR(closed_);
      if (ready_.empty()) {
        return absl::UnavailableError(
            absl::StrCat("the stage before ended its stream; the hidden states "
                         "of step ",
                         step_id, " will not come"));
      }
      if (ready_.front().step_id >= step_id) break;
      PopReady();
      if (on_room_) on_room = std::exchange(on_room_, nullptr);
    }
    Tensor& tensor = ready_.front();
    if (tensor.step_id > step_id) {
      return absl::DataLossError(
          absl::StrCat("hidden states of step ", tensor.step_id,
                       " came where those of step ", step_id, " are due"));
    }
    if (tensor.values.size() !=
        static_cast<size_t>(n_tokens) * options_.hidden_size) {
      return absl::DataLossError(
          absl::StrCat("the hidden states of step ", step_id, " are of ",
                       tensor.values.size() / options_.hidden_size,
                       " tokens; the plan has ", n_tokens));
    }
    std::swap(*hidden, tensor.values);
    PopReady();
    if (on_room_) on_room = std::exchange(on_room_, nullptr);
    return absl::OkStatus();
  };
  absl::Status status;
  {
    absl::MutexLock lock(&mu_);
    status = take();
  }
  if (on_room) on_room();
  return status;
}

void HiddenStatesInbox::PopReady() {
  if (ready_.front().values.capacity() > 0) {
    spare_.push_back(std::move(ready_.front().values));
  }
  ready_.pop_front();
}

}  // namespace tern
