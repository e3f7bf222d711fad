#ifndef MODEL_STEP_TIMES_H_
#define MODEL_STEP_TIMES_H_

#include "absl/types/span.h"

namespace tern {

// How long a worker takes for the parts of a step of a model, in seconds; all
// zero while nobody has measured.
//
//   layer   step_s + tokens * token_s + positions attended to * context_s
//   head    step_s + rows * row_s
//
// What a step costs however few tokens it has is reading weights; what each
// token adds is arithmetic. The embedding (one row a token) is not counted.
struct StepTimes {
  double layer_step_s = 0;
  double layer_token_s = 0;
  double layer_context_s = 0;
  double head_step_s = 0;
  double head_row_s = 0;  // for each token that is sampled

  bool is_known() const { return layer_step_s > 0 || layer_token_s > 0; }
};

// What a step asks of a stage.
struct StepLoad {
  double n_tokens = 0;
  double n_context = 0;  // positions attended to, summed over the tokens
  double n_rows = 0;     // tokens sampled
};

// One layer, and the head.
double LayerSeconds(const StepTimes& times, const StepLoad& load);
double HeadSeconds(const StepTimes& times, const StepLoad& load);

// A stage of so many layers.
double StageSeconds(const StepTimes& times, int n_layers, bool has_head,
                    const StepLoad& load);

// All of them `factor` times as long.
StepTimes Scaled(const StepTimes& times, double factor);

// What something took for so many tokens.
struct TimedCount {
  double count;
  double seconds;
};

// The line seconds = base_s + count * each_s with the least sum of squares of
// relative errors, neither part negative: where the best line has one, that one
// is 0 and the other the best without it. Zero without points. Pure.
// REQUIRES: every point's seconds > 0.
struct TimeLine {
  double base_s = 0;
  double each_s = 0;
};
TimeLine FitLine(absl::Span<const TimedCount> points);

}  // namespace tern

#endif  // MODEL_STEP_TIMES_H_
