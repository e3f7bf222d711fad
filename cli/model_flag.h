#ifndef CLI_MODEL_FLAG_H_
#define CLI_MODEL_FLAG_H_

#include <string>

namespace tern {

// --model: the name of a model, or empty for the cluster's only one.
std::string ModelFromFlag();

inline constexpr char kModelFlagFile[] = "cli/model_flag.cc";

}  // namespace tern

#endif  // CLI_MODEL_FLAG_H_
