#include "cli/doctor.h"

#include <iostream>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "cli/connection.h"
#include "cli/readiness.h"
#include "cli/report.h"
#include "cli/status.h"
#include "cli/status_why.h"
#include "client/client.h"
#include "util/credential_flags.h"

namespace tern {
namespace {

// Prints findings and remembers whether one was bad.
class Findings {
 public:
  void Good(const std::string& what) { std::cout << "ok    " << what << "\n"; }
  void Note(const std::string& what, const std::string& remedy) {
    std::cout << "note  " << what << "\n      " << remedy << "\n";
  }
  void Bad(const std::string& what, const std::string& remedy) {
    std::cout << "FAIL  " << what << "\n      " << remedy << "\n";
    n_bad_++;
  }
  int n_bad() const { return n_bad_; }

 private:
  int n_bad_ = 0;
};

// Whether the server answers at all. Nothing else is worth a look otherwise.
bool CheckConnection(Client* client, const ClientOptions& options,
                     const CallOptions& call, Findings* findings) {
  const bool uses_tls = !options.credentials.ca_file.empty();
  const auto live = client->IsServing("liveness", call);
  if (live.ok() && *live) {
    findings->Good(absl::StrCat(options.server, " answers, with ",
                                uses_tls ? "TLS" : "plaintext"));
    return true;
  }
  if (live.ok()) {
    findings->Bad(absl::StrCat(options.server, " says that it is not alive"),
                  "restart the coordinator; its log says why");
    return false;
  }
  const std::string what =
      absl::StrCat(options.server, ": ", live.status().ToString());
  if (absl::IsUnavailable(live.status())) {
    findings->Bad(
        what,
        uses_tls
            ? absl::StrCat("is a coordinator listening there, with a "
                           "certificate of \"",
                           options.peer_name,
                           "\" and an authority that both sides share? its log "
                           "names a refused handshake")
            : "is a coordinator listening there? if it uses TLS, name "
              "certificates with --tls_ca_file, --tls_cert_file and "
              "--tls_key_file");
  } else {
    findings->Bad(what, "is what listens there a Tern coordinator?");
  }
  return false;
}

void CheckModels(Client* client, const CallOptions& call, Findings* findings) {
  const auto models = client->ListModels(call);
  if (!models.ok()) {
    findings->Bad(absl::StrCat("models: ", models.status().ToString()),
                  "the coordinator's log says why");
    return;
  }
  if (models->models().empty()) {
    findings->Bad("the cluster has no model",
                  "start the coordinator with --model=FILE.gguf, or load one "
                  "with tern models load");
  }
  for (const v1::Model& model : models->models()) {
    const Readiness readiness =
        ReadinessOf(*models, model.name(), /*percent_step=*/1);
    if (readiness.ready) {
      findings->Good(absl::StrCat("model ", model.name(), " takes requests"));
    } else {
      findings->Bad(
          absl::StrCat("model ", model.name(), ": ", readiness.progress),
          "start workers with the same model file and --coordinator, as many "
          "as --stages of the coordinator says or as their memory needs, or "
          "wait until they have loaded");
    }
  }
}

void CheckWorkers(Client* client, const CallOptions& call, Findings* findings) {
  const auto workers = client->ListWorkers(call);
  if (!workers.ok()) {
    findings->Bad(absl::StrCat("workers: ", workers.status().ToString()),
                  "the coordinator's log says why");
    return;
  }
  if (workers->workers().empty()) {
    findings->Bad("no worker has registered",
                  "start workers with --coordinator set to this coordinator; "
                  "their logs name what keeps them away");
  }
  for (const v1::Worker& worker : workers->workers()) {
    const std::string what =
        absl::StrCat("worker ", worker.worker_id(), " at ", worker.address(),
                     " is ", ShortName(worker.state()));
    if (worker.state() == v1::WORKER_STATE_LOST) {
      findings->Bad(what,
                    "it has stopped or cannot reach the coordinator; its log "
                    "names the last error");
    } else if (worker.state() == v1::WORKER_STATE_HUNG) {
      findings->Bad(what,
                    "it owed a step and computed nothing; it gets no stage "
                    "before it does something again: look at its machine, or "
                    "restart it");
    } else {
      const v1::WorkerCapabilities& can = worker.capabilities();
      // It serves on: worth knowing, and nothing that is wrong.
      if (worker.is_slow()) {
        findings->Note(DescribeSlowness(worker),
                       "what else runs on its machine, or has it become hot? "
                       "the pipeline is cut anew where that pays: `tern status "
                       "--why`");
      }
      findings->Good(can.thread_placement().empty()
                         ? what
                         : absl::StrCat(what, "; threads (", can.thread_count(),
                                        ") ", can.thread_placement()));
    }
  }
}

ExitCode Run(const Arguments& arguments) {
  if (!arguments.positional.empty()) {
    return ReportUsage("doctor", absl::StrCat("doctor takes no \"",
                                              arguments.positional[0], "\""));
  }
  ClientOptions options = ClientOptionsFromFlags();
  CallOptions call;
  call.cancellation = CancelledByUser();
  if (options.default_deadline == absl::InfiniteDuration()) {
    call.deadline = absl::Seconds(10);
  }
  Findings findings;
  auto client = Client::Create(options);
  if (!client.ok()) {
    findings.Bad(std::string(client.status().message()),
                 "nothing else can be looked at before that");
  } else if (CheckConnection(client->get(), options, call, &findings)) {
    CheckModels(client->get(), call, &findings);
    CheckWorkers(client->get(), call, &findings);
  }
  if (findings.n_bad() == 0) {
    std::cout << "all is well" << std::endl;
    return kExitOk;
  }
  std::cout << findings.n_bad()
            << (findings.n_bad() == 1 ? " thing is" : " things are") << " wrong"
            << std::endl;
  return kExitFailed;
}

}  // namespace

Command DoctorCommand() {
  return {"doctor",
          "look for what is wrong with a cluster",
          R"(usage: tern doctor [FLAGS]

Connects, and looks at certificates, health, models and workers. Says of each
thing that is wrong what may be done about it; ends with 1 if there is any.
)",
          {kConnectionFlagsFile, kCredentialFlagsFile},
          &Run};
}

}  // namespace tern
