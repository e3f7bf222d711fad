#include "worker/topology.h"

#include <set>
#include <tuple>
#include <vector>

#include "gtest/gtest.h"
#include "worker/machine.h"
#include "worker/thread_placement.h"

namespace tern {
namespace {

using Row = std::tuple<int, int, int>;  // id, core, node

std::vector<Row> Rows(const std::vector<Processor>& processors) {
  std::vector<Row> rows;
  for (const Processor& p : processors) {
    rows.push_back({p.id, p.core, p.node});
  }
  return rows;
}

TEST(Topology, SiblingsShareACoreAndCoresANode) {
  EXPECT_EQ(
      Rows(SyntheticProcessors("node:2 core:2 pu:2(indexes=0,4,1,5,2,6,3,7)")),
      (std::vector<Row>{{0, 0, 0},
                        {4, 0, 0},
                        {1, 1, 0},
                        {5, 1, 0},
                        {2, 2, 1},
                        {6, 2, 1},
                        {3, 3, 1},
                        {7, 3, 1}}));
}

TEST(Topology, ProcessorsWithoutCoresAreTheirOwn) {
  EXPECT_EQ(Rows(SyntheticProcessors("node:1 pu:2")),
            (std::vector<Row>{{0, 2, 0}, {1, 3, 0}}));
}

TEST(Topology, WordsThatHwlocDoesNotKnowDescribeNothing) {
  EXPECT_TRUE(SyntheticProcessors("two sockets").empty());
}

TEST(Topology, ThisMachineHasTheProcessorsOfTheMask) {
  const ProcessorGrant grant = ThisProcessGrant();
  EXPECT_EQ(grant.allowed, AllowedProcessors());
  std::set<int> ids;
  for (const Processor& p : grant.machine) {
    EXPECT_TRUE(ids.insert(p.id).second) << p.id;
  }
  for (const int id : grant.allowed) EXPECT_EQ(ids.count(id), 1u) << id;
}

}  // namespace
}  // namespace tern
