#ifndef CLI_STATUS_H_
#define CLI_STATUS_H_

#include <string>

#include "cli/command.h"
#include "proto/tern/v1/cluster.pb.h"
#include "proto/tern/v1/inference.pb.h"

namespace tern {

// tern status: shows models, pipelines and workers.
Command StatusCommand();

// What `tern status` prints.
std::string FormatStatus(const v1::ListModelsResponse& models,
                         const v1::ListWorkersResponse& workers);

// "READY" of WORKER_STATE_READY and PIPELINE_STATE_READY.
std::string ShortName(v1::WorkerState state);
std::string ShortName(v1::PipelineState state);

}  // namespace tern

#endif  // CLI_STATUS_H_
