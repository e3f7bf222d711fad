#include "coordinator/operator_state_proto.h"

#include <utility>

#include "absl/status/status.h"
#include "proto/tern/v1/journal.pb.h"

namespace tern {

std::string EncodeOperatorState(const OperatorState& state) {
  v1::JournalOperatorState out;
  for (const OperatorState::LoadedModel& model : state.models) {
    v1::JournalLoadedModel* to = out.add_models();
    to->set_name(model.name);
    to->set_file(model.file);
    if (model.n_stages.has_value()) to->set_stage_count(*model.n_stages);
    if (model.kv_cache_tokens.has_value()) {
      to->set_kv_cache_tokens(*model.kv_cache_tokens);
    }
  }
  for (const std::string& id : state.cordoned) out.add_cordoned_worker_ids(id);
  return out.SerializeAsString();
}

absl::StatusOr<OperatorState> ParseOperatorState(absl::string_view bytes) {
  v1::JournalOperatorState in;
  if (!in.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::DataLossError("bytes that are no operator state");
  }
  OperatorState state;
  for (const v1::JournalLoadedModel& from : in.models()) {
    if (from.name().empty() || from.file().empty()) {
      return absl::DataLossError("a loaded model without name or file");
    }
    OperatorState::LoadedModel& model = state.models.emplace_back();
    model.name = from.name();
    model.file = from.file();
    if (from.has_stage_count()) model.n_stages = from.stage_count();
    if (from.has_kv_cache_tokens()) {
      model.kv_cache_tokens = from.kv_cache_tokens();
    }
  }
  state.cordoned.insert(in.cordoned_worker_ids().begin(),
                        in.cordoned_worker_ids().end());
  return state;
}

}  // namespace tern
