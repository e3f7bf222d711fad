#include "coordinator/kept_kv_proto.h"

#include <utility>

#include "absl/status/status.h"
#include "coordinator/block_manager.h"
#include "proto/tern/v1/journal.pb.h"
#include "util/status_macros.h"

namespace tern {
namespace {

void Encode(const KeptKvOfModel& from, v1::JournalKeptKv* to) {
  to->set_model(from.model);
  to->set_model_fingerprint(from.fingerprint);
  to->set_numerics_id(from.kept.numerics_id);
  to->set_keeps_boundary(from.kept.keeps_boundary);
  for (const KeptKv::Stage& stage : from.kept.stages) {
    v1::JournalKeptStage* out = to->add_stages();
    out->set_worker_id(stage.worker_id);
    out->set_incarnation(stage.incarnation);
    out->set_layer_begin(stage.range.layer_begin);
    out->set_layer_end(stage.range.layer_end);
    out->set_epoch(stage.epoch);
  }
  const BlockManager::State state = from.kept.blocks.ToState();
  to->set_block_count(state.n_blocks);
  to->set_block_size(state.block_size);
  for (const auto& [salt, prefix] : state.roots) {
    v1::JournalKeptRoot* root = to->add_roots();
    root->set_salt(salt);
    root->set_prefix(prefix);
  }
  for (const BlockManager::KnownBlock& known : state.known) {
    v1::JournalKeptBlock* block = to->add_blocks();
    block->set_block_id(known.block_id);
    block->set_parent(known.parent);
    block->set_prefix(known.prefix);
    block->mutable_token_ids()->Add(known.tokens.begin(), known.tokens.end());
    block->set_lost_begin(known.lost_by.begin);
    block->set_lost_end(known.lost_by.end);
  }
}

absl::StatusOr<KeptKvOfModel> Decode(const v1::JournalKeptKv& from) {
  BlockManager::State state;
  state.n_blocks = from.block_count();
  state.block_size = from.block_size();
  for (const v1::JournalKeptRoot& root : from.roots()) {
    state.roots[root.salt()] = root.prefix();
  }
  for (const v1::JournalKeptBlock& block : from.blocks()) {
    state.known.push_back({block.block_id(),
                           block.parent(),
                           block.prefix(),
                           {block.token_ids().begin(), block.token_ids().end()},
                           {block.lost_begin(), block.lost_end()}});
  }
  ASSIGN_OR_RETURN(BlockManager blocks, BlockManager::FromState(state));
  KeptKvOfModel to = {
      from.model(),
      from.model_fingerprint(),
      {{}, from.numerics_id(), from.keeps_boundary(), std::move(blocks)}};
  for (const v1::JournalKeptStage& stage : from.stages()) {
    to.kept.stages.push_back(
        {stage.worker_id(),
         stage.incarnation(),
         {stage.layer_begin(), stage.layer_end(), to.kept.stages.empty(),
          static_cast<int>(to.kept.stages.size()) + 1 == from.stages_size()},
         stage.epoch()});
  }
  return to;
}

}  // namespace

std::string EncodeKeptKvs(const std::vector<KeptKvOfModel>& all) {
  v1::JournalKeptKvs message;
  for (const KeptKvOfModel& each : all) Encode(each, message.add_kept());
  return message.SerializeAsString();
}

absl::StatusOr<std::vector<KeptKvOfModel>> ParseKeptKvs(
    absl::string_view bytes) {
  v1::JournalKeptKvs message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::DataLossError("bytes that say nothing of KV blocks");
  }
  std::vector<KeptKvOfModel> all;
  for (const v1::JournalKeptKv& kept : message.kept()) {
    ASSIGN_OR_RETURN(KeptKvOfModel each, Decode(kept));
    all.push_back(std::move(each));
  }
  return all;
}

}  // namespace tern
