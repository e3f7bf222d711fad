#include "worker/stage_weights.h"

#include <algorithm>
#include <atomic>
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

// Of an int8 panel: the scale and the norm of each row.
constexpr size_t kHeadFloatBytes = 2 * kHeadPanelRows * sizeof(float);

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
    RETURN_IF_ERROR(Allocate());
    RETURN_IF_ERROR(Report(0));
    for (LayerTensors& tensors : tensors_) {
      RETURN_IF_ERROR(PackLayer(&tensors, &weights_.layers.emplace_back()));
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
      tensors_.push_back(std::move(layer));
      for (const TensorGroup& group : GroupsOf(&tensors_.back())) {
        AddGroupBytes(group);
      }
    }
    if (range.has_embedding) {
      ASSIGN_OR_RETURN(embedding_, source.FindEmbedding());
    }
    for (const int64_t bytes : node_bytes_) total_bytes_ += bytes;
    if (!range.has_head) return absl::OkStatus();
    ASSIGN_OR_RETURN(head_, source.FindHead());
    ASSIGN_OR_RETURN(weights_.output_norm, source.FindOutputNorm());
    RETURN_IF_ERROR(CheckNorm(weights_.output_norm, "output_norm.weight"));
    if (weights_.spec.head_mode == HeadMode::kInt8) {
      head_bytes_ = 2 * Int8PlaneBytes(head_.n_rows, head_.n_columns);
      total_bytes_ += head_bytes_ + HeadPanelCount(head_.n_rows) *
                                        static_cast<int64_t>(kHeadFloatBytes);
    } else {
      total_bytes_ += static_cast<int64_t>(head_.data.size());
    }
    return absl::OkStatus();
  }

  // Matrices in the order of their group.
  using TensorGroup = std::vector<TernaryTensor*>;
  static std::vector<TensorGroup> GroupsOf(LayerTensors* layer) {
    return {{&layer->q, &layer->k, &layer->v},
            {&layer->o},
            {&layer->gate, &layer->up},
            {&layer->down}};
  }

  static int64_t PanelsOf(const TensorGroup& group) {
    int64_t n = 0;
    for (const TernaryTensor* tensor : group) n += PanelCount(tensor->n_out);
    return n;
  }

  size_t PanelBytesOf(const TernaryTensor& tensor) const {
    return PanelBytes(tensor.n_in, weights_.spec.packing);
  }

  void AddGroupBytes(const TensorGroup& group) {
    const std::vector<int64_t> parts = pool_.NodeParts(PanelsOf(group));
    node_bytes_.resize(parts.size() - 1);
    for (size_t i = 0; i < node_bytes_.size(); ++i) {
      node_bytes_[i] += (parts[i + 1] - parts[i]) * PanelBytesOf(*group[0]);
    }
  }

  // Memory is placed by pages, and in huge ones a matrix has few: what the
  // threads of a node read lies together, from a page's boundary on.
  absl::Status Allocate() {
    const int64_t page = node_bytes_.size() > 1 ? HugeBuffer::kAlignment : 1;
    int64_t bytes = 0;
    std::vector<int64_t> begins;
    for (const int64_t n : node_bytes_) {
      begins.push_back(bytes);
      bytes += (n + page - 1) / page * page;
    }
    ASSIGN_OR_RETURN(weights_.packed, HugeBuffer::Allocate(bytes + head_bytes_,
                                                           "packed weights"));
    for (const int64_t begin : begins) {
      next_.push_back(weights_.packed.data() + begin);
    }
    packed_head_ = weights_.packed.data() + bytes;
    return absl::OkStatus();
  }

  absl::Status PackLayer(LayerTensors* tensors, LayerWeights* layer) {
    layer->attn_norm = tensors->attn_norm;
    layer->attn_sub_norm = tensors->attn_sub_norm;
    layer->ffn_norm = tensors->ffn_norm;
    layer->ffn_sub_norm = tensors->ffn_sub_norm;
    const std::vector<TensorGroup> groups = GroupsOf(tensors);
    RETURN_IF_ERROR(PackGroup(groups[0], &layer->qkv));
    RETURN_IF_ERROR(PackGroup(groups[1], &layer->output));
    RETURN_IF_ERROR(PackGroup(groups[2], &layer->gate_up));
    return PackGroup(groups[3], &layer->down);
  }

  absl::Status PackGroup(const TensorGroup& tensors, MatrixGroup* group) {
    for (TernaryTensor* tensor : tensors) {
      RETURN_IF_ERROR(MeasureTernary(tensor));
    }
    CutSlices(tensors, group);
    FirstError error;
    {
      const ThreadPool::CallerBinding binding(pool_);
      pool_.ParallelForFirstTouch(
          group->panel_count(), 0, 1, [&](int64_t begin, int64_t end) {
            group->ForSlices(
                begin, end,
                [&](const MatrixSlice& slice, int row_begin, int row_end) {
                  error.Update(PackRows(*tensors[slice.matrix], slice,
                                        row_begin, row_end));
                });
          });
    }
    RETURN_IF_ERROR(error.status());
    int64_t bytes = 0;
    for (const TernaryTensor* tensor : tensors) {
      weights_.source->Release(tensor->data);
      bytes += PanelCount(tensor->n_out) * PanelBytesOf(*tensor);
    }
    return Report(bytes);
  }

  // Gives each slice its place in the memory of its node.
  void CutSlices(const TensorGroup& tensors, MatrixGroup* group) {
    const std::vector<int64_t> parts = pool_.NodeParts(PanelsOf(tensors));
    int64_t first = 0;  // panel of the matrix in the list of all
    for (size_t m = 0; m < tensors.size(); ++m) {
      const TernaryTensor& tensor = *tensors[m];
      const int64_t last = first + PanelCount(tensor.n_out);
      group->n_out.push_back(tensor.n_out);
      for (size_t node = 0; node + 1 < parts.size(); ++node) {
        const int64_t from = std::max(first, parts[node]);
        const int64_t to = std::min(last, parts[node + 1]);
        if (from >= to) continue;
        const int row = static_cast<int>(from - first) * kPanelRows;
        const int row_end =
            std::min(static_cast<int>(to - first) * kPanelRows, tensor.n_out);
        group->slices.push_back({static_cast<int>(m),
                                 row,
                                 {next_[node], row_end - row, tensor.n_in,
                                  tensor.scale, weights_.spec.packing}});
        next_[node] += (to - from) * PanelBytesOf(tensor);
      }
      first = last;
    }
  }

  // Rows of a slice, which is packed in memory that is ours to write.
  absl::Status PackRows(const TernaryTensor& tensor, const MatrixSlice& slice,
                        int row_begin, int row_end) const {
    const size_t panel_bytes = PanelBytesOf(tensor);
    const int64_t offset = slice.view.packed - weights_.packed.data();
    uint8_t* panel =
        weights_.packed.data() + offset + row_begin / kPanelRows * panel_bytes;
    std::vector<uint8_t> codes(size_t{kPanelRows} * tensor.n_in);
    for (int row = row_begin; row < row_end; row += kPanelRows) {
      const int n_rows = std::min(kPanelRows, row_end - row);
      const int first = slice.row_begin + row;  // of the matrix
      RETURN_IF_ERROR(
          DecodeTernaryRows(tensor, first, first + n_rows, codes.data()));
      PackTernaryPanel(codes.data(), n_rows, tensor.n_in, panel,
                       weights_.spec.packing);
      panel += panel_bytes;
    }
    return absl::OkStatus();
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
    const int n_slices = (n_panels + kHeadSlicePanels - 1) / kHeadSlicePanels;
    for (int slice = 0; slice < n_slices; ++slice) {
      FirstError error;
      std::atomic<int64_t> bytes{0};
      {
        const ThreadPool::CallerBinding binding(pool_);
        pool_.ParallelForFirstTouch(
            n_panels, slice, n_slices, [&](int64_t begin, int64_t end) {
              error.Update(LoadHeadPanels(head, static_cast<int>(begin),
                                          static_cast<int>(end)));
              const size_t row = begin * kHeadPanelRows;
              const size_t n_rows =
                  std::min<size_t>(end * kHeadPanelRows, head.n_rows) - row;
              const absl::Span<const uint8_t> stored =
                  head_.data.subspan(row * row_bytes, n_rows * row_bytes);
              if (is_int8) weights_.source->Release(stored);
              bytes += is_int8 ? (end - begin) *
                                     (2 * HeadPanelBytes(head.n_columns) +
                                      kHeadFloatBytes)
                               : stored.size();
            });
      }
      RETURN_IF_ERROR(error.status());
      RETURN_IF_ERROR(Report(bytes));
    }
    if (is_int8) {
      weights_.head_int8 = {packed_head_,
                            packed_head_ + head_bytes_ / 2,
                            weights_.head_row_scale.data(),
                            weights_.head_lower_norm.data(),
                            head.n_rows,
                            head.n_columns};
    }
    return absl::OkStatus();
  }

  // Packs panels of the head, or only looks through them when it is read from
  // the file.
  absl::Status LoadHeadPanels(const DenseView& head, int begin, int end) {
    const bool is_int8 = weights_.spec.head_mode == HeadMode::kInt8;
    const size_t panel_bytes = HeadPanelBytes(head.n_columns);
    uint8_t* const lower = packed_head_ + head_bytes_ / 2;
    for (int panel = begin; panel < end; ++panel) {
      const int row = panel * kHeadPanelRows;
      const int bad_row =
          is_int8 ? PackInt8Panel(kernels_, head, panel,
                                  {packed_head_ + panel * panel_bytes,
                                   lower + panel * panel_bytes,
                                   &weights_.head_row_scale[row],
                                   &weights_.head_lower_norm[row]})
                  : FirstBadRow(head, panel);
      if (bad_row >= 0) return HeadRowError(bad_row);
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
  std::vector<int64_t> node_bytes_;  // [nodes], of packed matrices
  int64_t head_bytes_ = 0;           // packed, both planes
  int64_t total_bytes_ = 0;
  int64_t done_bytes_ = 0;
  std::vector<uint8_t*> next_;      // [nodes], where the next slice is packed
  uint8_t* packed_head_ = nullptr;  // the upper plane, then the lower
};

}  // namespace

int64_t MatrixGroup::panel_count() const {
  int64_t n = 0;
  for (const int rows : n_out) n += PanelCount(rows);
  return n;
}

void MatrixGroup::ForSlices(int64_t begin, int64_t end,
                            absl::FunctionRef<void(const MatrixSlice& slice,
                                                   int row_begin, int row_end)>
                                fn) const {
  int64_t first = 0;  // panel of the slice in the list of all
  for (const MatrixSlice& slice : slices) {
    const int n_rows = slice.view.n_out;
    const int64_t last = first + PanelCount(n_rows);
    const int64_t from = std::max(begin, first);
    const int64_t to = std::min(end, last);
    if (from < to) {
      fn(slice, static_cast<int>(from - first) * kPanelRows,
         std::min(static_cast<int>(to - first) * kPanelRows, n_rows));
    }
    first = last;
  }
}

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
