#include "worker/stage_weights.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/mutex.h"
#include "absl/types/span.h"
#include "kernels/head_packing.h"
#include "kernels/kernels.h"
#include "model/weights.h"
#include "util/status_macros.h"

namespace tern {
namespace {

// Panels of the head packed between two looks at progress, cancellation and
// pages to hand back: some 10 MB.
constexpr int kHeadSlicePanels = 256;

// The first error of several threads.
class FirstError {
 public:
  void Update(const absl::Status& status) ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    status_.Update(status);
  }
  absl::Status status() const ABSL_LOCKS_EXCLUDED(mu_) {
    absl::MutexLock lock(&mu_);
    return status_;
  }

 private:
  mutable absl::Mutex mu_;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
};

bool AllFinite(absl::Span<const float> values) {
  return std::all_of(values.begin(), values.end(),
                     [](float v) { return std::isfinite(v); });
}

absl::Status CheckNorm(absl::Span<const float> norm, absl::string_view name) {
  if (AllFinite(norm)) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(name, " holds a value that is not finite"));
}

absl::Status CheckNorms(const LayerTensors& layer, int index) {
  const std::string prefix = absl::StrCat("blk.", index, ".");
  RETURN_IF_ERROR(
      CheckNorm(layer.attn_norm, absl::StrCat(prefix, "attn_norm.weight")));
  RETURN_IF_ERROR(CheckNorm(layer.attn_sub_norm,
                            absl::StrCat(prefix, "attn_sub_norm.weight")));
  RETURN_IF_ERROR(
      CheckNorm(layer.ffn_norm, absl::StrCat(prefix, "ffn_norm.weight")));
  return CheckNorm(layer.ffn_sub_norm,
                   absl::StrCat(prefix, "ffn_sub_norm.weight"));
}

DenseType TypeOf(DenseEncoding encoding) {
  switch (encoding) {
    case DenseEncoding::kF32:
      return DenseType::kF32;
    case DenseEncoding::kF16:
      return DenseType::kF16;
    case DenseEncoding::kBF16:
      return DenseType::kBF16;
    case DenseEncoding::kQ8_0:
      return DenseType::kQ8_0;
    case DenseEncoding::kQ6K:
      return DenseType::kQ6_K;
    case DenseEncoding::kQ4K:
      return DenseType::kQ4_K;
  }
  return DenseType::kF32;
}

DenseView ViewOf(const DenseTensor& tensor) {
  return {tensor.data.data(), TypeOf(tensor.encoding), tensor.n_rows,
          tensor.n_columns};
}

// One load, from start to end.
class Loader {
 public:
  Loader(StageWeights* weights, ThreadPool* pool,
         absl::FunctionRef<void(int64_t, int64_t)> progress,
         absl::FunctionRef<bool()> cancelled)
      : weights_(*weights),
        pool_(*pool),
        progress_(progress),
        cancelled_(cancelled) {}

  absl::Status Load() {
    const StageRange& range = weights_.spec.range;
    RETURN_IF_ERROR(Find());
    ASSIGN_OR_RETURN(weights_.packed,
                     HugeBuffer::Allocate(packed_bytes_, "packed weights"));
    next_ = weights_.packed.data();
    RETURN_IF_ERROR(Report(0));
    for (size_t i = 0; i < tensors_.size(); ++i) {
      LayerWeights& layer = weights_.layers.emplace_back();
      RETURN_IF_ERROR(PackLayer(tensors_[i], &layer));
    }
    if (range.has_embedding) weights_.embedding = ViewOf(embedding_);
    if (range.has_head) RETURN_IF_ERROR(LoadHead());
    weights_.bytes = total_bytes_;
    return absl::OkStatus();
  }

 private:
  // Looks up everything before anything is packed, so that a file that cannot
  // be served is refused at once.
  absl::Status Find() {
    const ModelSource& source = *weights_.source;
    const StageRange& range = weights_.spec.range;
    for (int i = range.layer_begin; i < range.layer_end; ++i) {
      ASSIGN_OR_RETURN(LayerTensors layer, source.FindLayer(i));
      RETURN_IF_ERROR(CheckNorms(layer, i));
      for (const TernaryTensor* t : {&layer.q, &layer.k, &layer.v, &layer.o,
                                     &layer.gate, &layer.up, &layer.down}) {
        packed_bytes_ += MatrixBytes(*t);
      }
      tensors_.push_back(std::move(layer));
    }
    if (range.has_embedding) {
      ASSIGN_OR_RETURN(embedding_, source.FindEmbedding());
    }
    total_bytes_ = packed_bytes_;
    if (!range.has_head) return absl::OkStatus();
    ASSIGN_OR_RETURN(head_, source.FindHead());
    ASSIGN_OR_RETURN(weights_.output_norm, source.FindOutputNorm());
    RETURN_IF_ERROR(CheckNorm(weights_.output_norm, "output_norm.weight"));
    if (weights_.spec.head_mode == HeadMode::kInt8) {
      packed_bytes_ += 2 * Int8PlaneBytes(head_.n_rows, head_.n_columns);
      total_bytes_ = packed_bytes_;
    } else {
      total_bytes_ += static_cast<int64_t>(head_.data.size());
    }
    return absl::OkStatus();
  }

  int64_t MatrixBytes(const TernaryTensor& t) const {
    return static_cast<int64_t>(
        PackedBytes(t.n_out, t.n_in, weights_.spec.packing));
  }

  absl::Status PackLayer(const LayerTensors& tensors, LayerWeights* layer) {
    layer->attn_norm = tensors.attn_norm;
    layer->attn_sub_norm = tensors.attn_sub_norm;
    layer->ffn_norm = tensors.ffn_norm;
    layer->ffn_sub_norm = tensors.ffn_sub_norm;
    RETURN_IF_ERROR(PackMatrix(tensors.q, &layer->q));
    RETURN_IF_ERROR(PackMatrix(tensors.k, &layer->k));
    RETURN_IF_ERROR(PackMatrix(tensors.v, &layer->v));
    RETURN_IF_ERROR(PackMatrix(tensors.o, &layer->o));
    RETURN_IF_ERROR(PackMatrix(tensors.gate, &layer->gate));
    RETURN_IF_ERROR(PackMatrix(tensors.up, &layer->up));
    return PackMatrix(tensors.down, &layer->down);
  }

  absl::Status PackMatrix(TernaryTensor tensor, TernaryView* view) {
    RETURN_IF_ERROR(MeasureTernary(&tensor));
    const TernaryPacking packing = weights_.spec.packing;
    uint8_t* const packed = next_;
    FirstError error;
    pool_.ParallelFor(
        PanelCount(tensor.n_out), 1, [&](int64_t begin, int64_t end) {
          std::vector<uint8_t> codes(size_t{kPanelRows} * tensor.n_in);
          for (int64_t panel = begin; panel < end; ++panel) {
            const int row = static_cast<int>(panel) * kPanelRows;
            const int row_end = std::min(row + kPanelRows, tensor.n_out);
            const absl::Status status =
                DecodeTernaryRows(tensor, row, row_end, codes.data());
            if (!status.ok()) {
              error.Update(status);
              return;
            }
            PackTernaryPanel(codes.data(), row_end - row, tensor.n_in,
                             packed + panel * PanelBytes(tensor.n_in, packing),
                             packing);
          }
        });
    RETURN_IF_ERROR(error.status());
    weights_.source->Release(tensor.data);
    *view = {packed, tensor.n_out, tensor.n_in, tensor.scale, packing};
    next_ += MatrixBytes(tensor);
    return Report(MatrixBytes(tensor));
  }

  absl::Status LoadHead() {
    const DenseView head = ViewOf(head_);
    const bool is_int8 = weights_.spec.head_mode == HeadMode::kInt8;
    const int n_panels = HeadPanelCount(head.n_rows);
    const size_t row_bytes = DenseRowBytes(head.type, head.n_columns);
    if (is_int8) {
      weights_.head_row_scale.resize(size_t{kHeadPanelRows} * n_panels);
      weights_.head_lower_norm.resize(weights_.head_row_scale.size());
    } else {
      weights_.head_stored = head;
    }
    const size_t panel_bytes = HeadPanelBytes(head.n_columns);
    uint8_t* const upper = next_;
    uint8_t* const lower = upper + n_panels * panel_bytes;
    for (int first = 0; first < n_panels; first += kHeadSlicePanels) {
      const int count = std::min(kHeadSlicePanels, n_panels - first);
      FirstError error;
      pool_.ParallelFor(count, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = first + begin; i < first + end; ++i) {
          const int panel = static_cast<int>(i);
          const int row = panel * kHeadPanelRows;
          const int bad_row =
              is_int8 ? PackInt8Panel(kernels_, head, panel,
                                      {upper + panel * panel_bytes,
                                       lower + panel * panel_bytes,
                                       &weights_.head_row_scale[row],
                                       &weights_.head_lower_norm[row]})
                      : FirstBadRow(head, panel);
          if (bad_row >= 0) error.Update(HeadRowError(bad_row));
        }
      });
      RETURN_IF_ERROR(error.status());
      const size_t row = static_cast<size_t>(first) * kHeadPanelRows;
      const size_t n_rows = std::min<size_t>(
          static_cast<size_t>(count) * kHeadPanelRows, head.n_rows - row);
      const absl::Span<const uint8_t> slice =
          head_.data.subspan(row * row_bytes, n_rows * row_bytes);
      if (is_int8) weights_.source->Release(slice);
      RETURN_IF_ERROR(Report(is_int8 ? 2 * count * panel_bytes : slice.size()));
    }
    if (is_int8) {
      weights_.head_int8 = {upper,
                            lower,
                            weights_.head_row_scale.data(),
                            weights_.head_lower_norm.data(),
                            head.n_rows,
                            head.n_columns};
    }
    return absl::OkStatus();
  }

  // The first row of a panel with an element that is not finite, or -1.
  int FirstBadRow(const DenseView& head, int panel) const {
    std::vector<float> values(head.n_columns);
    const int begin = panel * kHeadPanelRows;
    const int end = std::min(begin + kHeadPanelRows, head.n_rows);
    for (int row = begin; row < end; ++row) {
      if (!kernels_.widen_row(head, row, values.data())) return row;
    }
    return -1;
  }

  absl::Status HeadRowError(int row) const {
    return absl::DataLossError(absl::StrCat(
        "row ", row, " of ", head_.name, " holds a value that is not finite"));
  }

  absl::Status Report(int64_t more_bytes) {
    done_bytes_ += more_bytes;
    progress_(done_bytes_, total_bytes_);
    if (cancelled_()) return absl::CancelledError("loading was cancelled");
    return absl::OkStatus();
  }

  StageWeights& weights_;
  ThreadPool& pool_;
  const absl::FunctionRef<void(int64_t, int64_t)> progress_;
  const absl::FunctionRef<bool()> cancelled_;
  // Every table computes the same bits, so that the loader takes the fastest.
  const Kernels& kernels_ = BestKernels();

  std::vector<LayerTensors> tensors_;
  DenseTensor embedding_{};
  DenseTensor head_{};
  int64_t packed_bytes_ = 0;
  int64_t total_bytes_ = 0;
  int64_t done_bytes_ = 0;
  uint8_t* next_ = nullptr;  // where the next matrix is packed
};

}  // namespace

absl::StatusOr<std::shared_ptr<const StageWeights>> LoadStageWeights(
    std::shared_ptr<const ModelSource> source, const StageSpec& spec,
    ThreadPool* pool,
    absl::FunctionRef<void(int64_t packed_bytes, int64_t total_bytes)> progress,
    absl::FunctionRef<bool()> cancelled) {
  const ModelConfig& config = source->config();
  if (spec.range.layer_begin < 0 || spec.range.layer_end > config.n_layers ||
      spec.range.layer_begin >= spec.range.layer_end) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a stage of layers [", spec.range.layer_begin, ", ",
        spec.range.layer_end, ") cannot be cut from ", config.n_layers));
  }
  auto weights = std::make_shared<StageWeights>();
  weights->config = config;
  weights->spec = spec;
  weights->source = std::move(source);
  RETURN_IF_ERROR(Loader(weights.get(), pool, progress, cancelled).Load());
  return std::shared_ptr<const StageWeights>(std::move(weights));
}

}  // namespace tern
