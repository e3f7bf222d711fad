#include "coordinator/fair_queue.h"

#include <memory>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace tern {
namespace {

class FairQueueTest : public ::testing::Test {
 protected:
  Sequence* Add(const std::string& tenant, int priority = 0) {
    SequenceParameters parameters;
    parameters.prompt = {1};
    parameters.tenant = tenant;
    parameters.priority = priority;
    const int64_t id = static_cast<int64_t>(sequences_.size()) + 1;
    sequences_.push_back(std::make_unique<Sequence>(id, parameters));
    queue_.Enter(sequences_.back().get());
    return sequences_.back().get();
  }

  void Start(Sequence* sequence) {
    queue_.Start(sequence);
    sequence->pipeline = 0;
  }

  std::vector<std::unique_ptr<Sequence>> sequences_;
  FairQueue queue_;
};

TEST_F(FairQueueTest, OneTenantsSequencesGoInTheOrderOfArrival) {
  Sequence* first = Add("a");
  Sequence* second = Add("a");
  EXPECT_EQ(queue_.Next(), first);
  Start(first);
  EXPECT_EQ(queue_.Next(), second);
  EXPECT_EQ(queue_.n_waiting(), 1);
  EXPECT_EQ(queue_.n_running(), 1);
  Start(second);
  EXPECT_EQ(queue_.Next(), nullptr);
}

TEST_F(FairQueueTest, MoreUrgentGoesFirst) {
  Add("a");
  Sequence* urgent = Add("a", 1);
  EXPECT_EQ(queue_.Next(), urgent);
}

TEST_F(FairQueueTest, WhoHadLeastGoesNext) {
  Sequence* a1 = Add("a");
  Sequence* a2 = Add("a");
  Sequence* b = Add("b");
  Start(a1);
  // Nobody has had anything yet, but a runs one already.
  EXPECT_EQ(queue_.Next(), b);
  queue_.Charge(*b, 10);
  EXPECT_EQ(queue_.Next(), a2);
  queue_.Charge(*a1, 11);
  EXPECT_EQ(queue_.Next(), b);
}

TEST_F(FairQueueTest, IdlenessIsNotSavedUp) {
  Sequence* a1 = Add("a");
  queue_.Charge(*a1, 100);
  Sequence* a2 = Add("a");
  Sequence* b = Add("b");
  EXPECT_EQ(queue_.ServedTo(*b), 100);
  queue_.Charge(*b, 1);
  EXPECT_EQ(queue_.Next(), a1);
  Start(a1);
  queue_.Charge(*a1, 1);
  EXPECT_EQ(queue_.Next(), b);  // It runs none.
  Start(b);
  EXPECT_EQ(queue_.Next(), a2);
}

TEST_F(FairQueueTest, PassesOverThoseThatAwaitAToken) {
  Sequence* first = Add("a");
  Sequence* second = Add("a");
  first->in_flight_step_id = 7;
  EXPECT_EQ(queue_.Next(), second);
  second->in_flight_step_id = 7;
  EXPECT_EQ(queue_.Next(), nullptr);
}

TEST_F(FairQueueTest, ReplacesOnlyWhereItMakesSharesMoreEven) {
  Sequence* a1 = Add("a");
  Sequence* a2 = Add("a");
  Start(a1);
  Start(a2);
  Sequence* b1 = Add("b");
  EXPECT_TRUE(queue_.MayReplace(*b1, *a2));
  Sequence* urgent = Add("b", 1);
  EXPECT_FALSE(queue_.MayReplace(*urgent, *a2)) << "of another level";
  queue_.Charge(*b1, 1);
  EXPECT_FALSE(queue_.MayReplace(*b1, *a2)) << "it has had more";
  queue_.Charge(*a1, 1);
  queue_.Return(a2);
  a2->pipeline = -1;
  EXPECT_FALSE(queue_.MayReplace(*b1, *a1)) << "one against one";
}

TEST_F(FairQueueTest, ForgetsThoseThatEnd) {
  Sequence* a1 = Add("a");
  Sequence* a2 = Add("a");
  Start(a1);
  queue_.Leave(a1);
  queue_.Leave(a2);
  EXPECT_EQ(queue_.Next(), nullptr);
  EXPECT_EQ(queue_.n_waiting(), 0);
  EXPECT_EQ(queue_.n_running(), 0);
}

}  // namespace
}  // namespace tern
