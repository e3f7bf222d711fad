#include "model/step_times.h"

namespace tern {

double LayerSeconds(const StepTimes& times, const StepLoad& load) {
  return times.layer_step_s + load.n_tokens * times.layer_token_s +
         load.n_context * times.layer_context_s;
}

double HeadSeconds(const StepTimes& times, const StepLoad& load) {
  return times.head_step_s + load.n_rows * times.head_row_s;
}

double StageSeconds(const StepTimes& times, int n_layers, bool has_head,
                    const StepLoad& load) {
  return n_layers * LayerSeconds(times, load) +
         (has_head ? HeadSeconds(times, load) : 0);
}

StepTimes Scaled(const StepTimes& times, double factor) {
  return {times.layer_step_s * factor, times.layer_token_s * factor,
          times.layer_context_s * factor, times.head_step_s * factor,
          times.head_row_s * factor};
}

TimeLine FitLine(absl::Span<const TimedCount> points) {
  // Least squares with weights 1 / seconds^2, so that relative errors count.
  double w = 0, wx = 0, wxx = 0, wy = 0, wxy = 0;
  for (const TimedCount& point : points) {
    const double weight = 1 / (point.seconds * point.seconds);
    w += weight;
    wx += weight * point.count;
    wxx += weight * point.count * point.count;
    wy += weight * point.seconds;
    wxy += weight * point.count * point.seconds;
  }
  if (w == 0) return {};
  const double determinant = w * wxx - wx * wx;
  // Points of one count say nothing of what each adds.
  if (determinant <= 1e-12 * w * wxx) return {wy / w, 0};
  const TimeLine line = {(wxx * wy - wx * wxy) / determinant,
                         (w * wxy - wx * wy) / determinant};
  if (line.base_s < 0) return {0, wxy / wxx};
  if (line.each_s < 0) return {wy / w, 0};
  return line;
}

}  // namespace tern
