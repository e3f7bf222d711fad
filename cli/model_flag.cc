#include "cli/model_flag.h"

#include "absl/flags/flag.h"

ABSL_FLAG(std::string, model, "",
          "Name of the model, as `tern status` lists it. May be left out while "
          "the cluster serves exactly one.");

namespace tern {

std::string ModelFromFlag() { return absl::GetFlag(FLAGS_model); }

}  // namespace tern
