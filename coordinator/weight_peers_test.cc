#include "coordinator/weight_peers.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "coordinator/cluster_view.h"
#include "gtest/gtest.h"

namespace tern {
namespace {

const absl::Time kNow = absl::FromUnixSeconds(100);

void Add(ClusterView* cluster, const std::string& id,
         std::vector<std::string> models, bool can_fetch, int port) {
  WorkerRegistration r;
  r.worker_id = id;
  r.incarnation = 1;
  r.protocol_version = kProtocolVersion;
  r.address = absl::StrCat("h:", port);
  r.numerics_class = "cpu-1";
  r.memory_bytes = 1;
  r.thread_count = 1;
  r.models = std::move(models);
  r.can_fetch_weights = can_fetch;
  const auto epoch = cluster->Register(r, true, kNow);
  EXPECT_TRUE(epoch.ok()) << epoch.status();
}

TEST(WeightPeers, ThoseWithFilesComeFirstAndTheDeadNotAtAll) {
  ClusterView cluster({});
  Add(&cluster, "a", {}, true, 1);
  Add(&cluster, "b", {"m"}, false, 2);
  Add(&cluster, "c", {"other"}, false, 3);
  Add(&cluster, "d", {"m", "other"}, true, 4);
  Add(&cluster, "e", {"m"}, false, 5);
  cluster.MarkUnreachable("e");
  EXPECT_EQ(WeightPeersOf(cluster, "m"),
            (std::vector<std::string>{"h:2", "h:4", "h:1"}));
}

TEST(WeightPeers, AreNotMoreThanTheMost) {
  ClusterView cluster({});
  for (int i = 0; i < 2 * kWeightPeersMax; ++i) {
    Add(&cluster, absl::StrCat("w", i), {"m"}, false, i + 1);
  }
  EXPECT_EQ(WeightPeersOf(cluster, "m").size(), size_t{kWeightPeersMax});
}

TEST(WeightPeers, WhoFetchesCanServeWhereItMay) {
  ClusterView cluster({});
  Add(&cluster, "a", {}, true, 1);
  Add(&cluster, "b", {}, false, 2);
  Add(&cluster, "c", {"m"}, false, 3);
  ASSERT_EQ(cluster.Available("m").size(), 1u);
  EXPECT_EQ(cluster.Available("m")[0]->registration.worker_id, "c");
  // Who has the files already comes first.
  ASSERT_EQ(cluster.Available("m", /*may_fetch=*/true).size(), 2u);
  EXPECT_EQ(cluster.Available("m", true)[0]->registration.worker_id, "c");
  EXPECT_EQ(cluster.Available("m", true)[1]->registration.worker_id, "a");
}

}  // namespace
}  // namespace tern
