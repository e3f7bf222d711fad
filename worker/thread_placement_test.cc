#include "worker/thread_placement.h"

#include <limits>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gtest/gtest.h"
#include "worker/topology.h"

namespace tern {
namespace {

constexpr PinMode kAuto = PinMode::kAuto;
constexpr PinMode kOn = PinMode::kOn;
constexpr PinMode kOff = PinMode::kOff;

// Processors [begin, end).
std::vector<int> Ids(int begin, int end) {
  std::vector<int> ids;
  for (int id = begin; id < end; ++id) ids.push_back(id);
  return ids;
}

struct Case {
  std::string name;
  std::string machine;  // in hwloc's words
  std::vector<int> allowed;
  double quota;
  int n_threads;
  PinMode mode;
  std::vector<int> processors;  // expected; empty when not to be bound
  std::vector<int> nodes;
};

constexpr double kNoQuota = std::numeric_limits<double>::infinity();

// As Linux numbers it: processors 0-3 are first threads of four cores, two on
// each of two nodes; 4-7 are the second ones.
const char kTwoSockets[] = "node:2 core:2 pu:2(indexes=0,4,1,5,2,6,3,7)";

const char kOneNode[] = "node:1 core:8 pu:1";

const Case kCases[] = {
    {"AllOfOneNodeIsSharedWithOthers",
     kOneNode,
     Ids(0, 8),
     kNoQuota,
     8,
     kAuto,
     {},
     {}},
    {"AMaskOfTheWorkersOwn",
     kOneNode,
     {2, 3, 6},
     kNoQuota,
     3,
     kAuto,
     {2, 3, 6},
     {0, 0, 0}},
    {"FewerThreadsThanCoresGiveWay",
     kOneNode,
     Ids(0, 4),
     kNoQuota,
     3,
     kAuto,
     {},
     {}},
    {"MoreThreadsThanProcessors",
     kOneNode,
     Ids(0, 4),
     kNoQuota,
     5,
     kAuto,
     {},
     {}},
    {"AQuotaBelowTheProcessors", kOneNode, Ids(0, 4), 3.5, 4, kAuto, {}, {}},
    {"AQuotaThatCoversThem",
     kOneNode,
     Ids(0, 4),
     4,
     4,
     kAuto,
     {0, 1, 2, 3},
     {0, 0, 0, 0}},
    {"AllOfTwoNodes",
     "node:2 core:2 pu:1",
     Ids(0, 4),
     kNoQuota,
     4,
     kAuto,
     {0, 1, 2, 3},
     {0, 0, 1, 1}},
    {"OneThreadOnEachCoreFirst",
     kTwoSockets,
     Ids(0, 8),
     kNoQuota,
     4,
     kAuto,
     {0, 1, 2, 3},
     {0, 0, 1, 1}},
    {"SiblingsStandTogether",
     kTwoSockets,
     Ids(0, 8),
     kNoQuota,
     8,
     kAuto,
     {0, 4, 1, 5, 2, 6, 3, 7},
     {0, 0, 0, 0, 1, 1, 1, 1}},
    {"SecondThreadsSpreadOverTheNodes",
     kTwoSockets,
     Ids(0, 8),
     kNoQuota,
     6,
     kAuto,
     {0, 4, 1, 2, 6, 3},
     {0, 0, 0, 1, 1, 1}},
    {"FirstThreadsSpreadOverTheNodes",
     kTwoSockets,
     Ids(0, 8),
     kNoQuota,
     2,
     kOn,
     {0, 2},
     {0, 1}},
    {"HolesInTheSetOfACore",
     kTwoSockets,
     {1, 4, 6, 7},
     kNoQuota,
     4,
     kAuto,
     {4, 1, 6, 7},
     {0, 0, 1, 1}},
    {"OneNodeOfTwo",
     kTwoSockets,
     {2, 3, 6, 7},
     kNoQuota,
     2,
     kAuto,
     {2, 3},
     {1, 1}},
    {"UnevenNodes",
     kTwoSockets,
     {0, 1, 3},
     kNoQuota,
     3,
     kAuto,
     {0, 1, 3},
     {0, 0, 1}},
    {"NodesInsideASocket",
     "pack:1 node:2 core:2 pu:1",
     Ids(0, 4),
     kNoQuota,
     4,
     kAuto,
     {0, 1, 2, 3},
     {0, 0, 1, 1}},
    {"SwitchedOff", kTwoSockets, Ids(0, 8), kNoQuota, 8, kOff, {}, {}},
    {"SwitchedOnUnderAQuota",
     kOneNode,
     Ids(0, 8),
     2,
     3,
     kOn,
     {0, 1, 2},
     {0, 0, 0}},
    {"AMaskThatCannotBeTold", kTwoSockets, {}, kNoQuota, 8, kAuto, {}, {}},
    {"ProcessorsThatHwlocDoesNotTell",
     "node:1 core:2 pu:1",
     {0, 1, 7, 9},
     kNoQuota,
     4,
     kOn,
     {0, 1, 7, 9},
     {0, 0, 0, 0}},
};

class PlaceThreadsTest : public ::testing::TestWithParam<Case> {};

TEST_P(PlaceThreadsTest, Chooses) {
  const Case& c = GetParam();
  const std::vector<Processor> machine = SyntheticProcessors(c.machine);
  ASSERT_FALSE(machine.empty());
  const auto placement =
      PlaceThreads({machine, c.allowed, c.quota}, c.n_threads, c.mode);
  ASSERT_TRUE(placement.ok()) << placement.status();
  EXPECT_EQ(placement->n_threads, c.n_threads);
  EXPECT_EQ(placement->processors, c.processors) << Describe(*placement);
  EXPECT_EQ(placement->nodes, c.nodes);
}

INSTANTIATE_TEST_SUITE_P(Machines, PlaceThreadsTest,
                         ::testing::ValuesIn(kCases),
                         [](const ::testing::TestParamInfo<Case>& info) {
                           return info.param.name;
                         });

TEST(PlaceThreads, ProcessorsThatAreNotThereCannotBeBoundTo) {
  const auto placement = PlaceThreads(
      {SyntheticProcessors("node:1 core:2 pu:1"), {0, 1}, kNoQuota}, 3, kOn);
  EXPECT_TRUE(absl::IsInvalidArgument(placement.status()));
  EXPECT_EQ(placement.status().message(),
            "3 threads cannot be bound to the 2 processors that this process "
            "may run on; use fewer threads, or do not bind them");
}

TEST(PlaceThreads, TheReasonIsTold) {
  const std::vector<Processor> machine = SyntheticProcessors(kTwoSockets);
  const auto describe = [&](double quota, int n_threads, PinMode mode) {
    return Describe(
        *PlaceThreads({machine, Ids(0, 8), quota}, n_threads, mode));
  };
  EXPECT_EQ(describe(kNoQuota, 6, kAuto),
            "bound to processors 0-4,6 of 2 nodes: they take every core that "
            "the process may use");
  EXPECT_EQ(describe(2.5, 3, kAuto),
            "not bound: the control group grants the time of 2.5 of 8 "
            "processors, and a thread that it stops must be able to go on "
            "elsewhere");
  EXPECT_EQ(describe(kNoQuota, 3, kAuto),
            "not bound: fewer threads (3) than cores (4), which leaves some to "
            "others, and who keeps to a core cannot give way to them");
  EXPECT_EQ(describe(kNoQuota, 9, kAuto),
            "not bound: more threads (9) than processors (8)");
  EXPECT_EQ(
      Describe(*PlaceThreads(
          {SyntheticProcessors(kOneNode), Ids(0, 8), kNoQuota}, 8, kAuto)),
      "not bound: the process may run on the whole machine, which has "
      "one memory node, so that binding would gain little and lose where "
      "others run");
  EXPECT_EQ(describe(kNoQuota, 8, kOff), "not bound: switched off");
  EXPECT_EQ(describe(kNoQuota, 1, kOn),
            "bound to processors 0 of 1 node: switched on");
}

TEST(ParsePinMode, KnowsThreeNames) {
  PinMode mode;
  EXPECT_TRUE(ParsePinMode("on", &mode));
  EXPECT_EQ(mode, PinMode::kOn);
  EXPECT_TRUE(ParsePinMode("off", &mode));
  EXPECT_EQ(mode, PinMode::kOff);
  EXPECT_TRUE(ParsePinMode("auto", &mode));
  EXPECT_EQ(mode, PinMode::kAuto);
  EXPECT_FALSE(ParsePinMode("", &mode));
  EXPECT_FALSE(ParsePinMode("yes", &mode));
}

}  // namespace
}  // namespace tern
