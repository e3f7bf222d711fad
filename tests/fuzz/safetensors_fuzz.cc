#include "tests/fuzz/safetensors_fuzz.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "model/model_source.h"
#include "model/safetensors_reader.h"
#include "model/weights.h"
#include "util/logging.h"

namespace tern {
namespace {

// Reads every row of a dense tensor, and nothing behind them.
void Touch(absl::Span<const uint8_t> data) {
  uint8_t sum = 0;
  for (uint8_t byte : data) sum += byte;
  volatile uint8_t sink = sum;
  (void)sink;
}

absl::Status ExerciseLayer(const ModelSource& source, int layer) {
  absl::StatusOr<LayerTensors> tensors = source.FindLayer(layer);
  if (!tensors.ok()) return tensors.status();
  for (TernaryTensor* t : {&tensors->q, &tensors->k, &tensors->v, &tensors->o,
                           &tensors->gate, &tensors->up, &tensors->down}) {
    absl::Status status = MeasureTernary(t);
    std::vector<uint8_t> codes(static_cast<size_t>(t->n_out) * t->n_in);
    if (status.ok()) {
      status = DecodeTernaryRows(*t, 0, t->n_out, codes.data());
    }
    if (!status.ok()) return status;
    for (uint8_t code : codes) CHECK(code <= 2);
  }
  return absl::OkStatus();
}

}  // namespace

SafetensorsDepth ExerciseSafetensors(absl::Span<const uint8_t> bytes) {
  if (bytes.size() < sizeof(uint32_t)) return SafetensorsDepth::kRefused;
  uint32_t length;
  std::memcpy(&length, bytes.data(), sizeof(length));
  bytes.remove_prefix(sizeof(length));
  const size_t n_config = std::min<size_t>(length, bytes.size());
  const absl::string_view config(reinterpret_cast<const char*>(bytes.data()),
                                 n_config);
  bytes.remove_prefix(n_config);

  const auto file = SafetensorsReader::FromBytes(bytes);
  if (file.ok()) {
    for (const SafetensorsTensor& tensor : (*file)->tensors()) {
      Touch(tensor.data);
    }
  }
  const absl::StatusOr<std::unique_ptr<ModelSource>> source =
      ModelSource::FromSafetensors(config, bytes);
  if (!source.ok()) {
    return file.ok() ? SafetensorsDepth::kRead : SafetensorsDepth::kRefused;
  }
  CHECK(file.ok());
  CHECK(!(*source)->tensors().empty());
  (void)(*source)->metadata();
  absl::Status status;
  for (int layer = 0; layer < (*source)->config().n_layers; ++layer) {
    status.Update(ExerciseLayer(**source, layer));
  }
  for (const auto& dense :
       {(*source)->FindEmbedding(), (*source)->FindHead()}) {
    status.Update(dense.status());
    if (!dense.ok()) continue;
    CHECK(static_cast<int64_t>(dense->data.size()) ==
          dense->row_bytes() * dense->n_rows);
    Touch(dense->data);
  }
  status.Update((*source)->FindOutputNorm().status());
  return status.ok() ? SafetensorsDepth::kComplete
                     : SafetensorsDepth::kConfigured;
}

}  // namespace tern
