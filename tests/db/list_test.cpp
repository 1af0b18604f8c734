#include "store_fixture.h"

namespace assay {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class ListTest : public StoreTest {
 protected:
  ListTest() { add_worker(8); }
};

TEST_F(ListTest, QueueOrderIsRunningThenWaitingThenEndedLatestFirst) {
  auto runs = enqueue(7);
  finish(runs[0], start(runs[0]));
  clock_.advance_ms(1000);
  finish(runs[1], start(runs[1]), RunState::failed);
  start(runs[4], {"d1"});
  start(runs[3], {"d2"});
  apply_ok({move(runs[2], RunState::queued, RunState::held)});
  ASSERT_TRUE(Database::open(path(), Database::Synchronous::full)
                  ->run("UPDATE runs SET priority = 3 WHERE id = ?", runs[6])
                  .ok());
  EXPECT_THAT(names({}), ElementsAre("run3", "run4", "run6", "run2", "run5", "run1", "run0"));
  EXPECT_THAT(names({.limit = 3}), ElementsAre("run3", "run4", "run6"));
  EXPECT_THAT(names({.limit = 6}), ElementsAre("run3", "run4", "run6", "run2", "run5", "run1"));
  EXPECT_THAT(names({.names = {"run0", "run5", "run4", "run0"}}), ElementsAre("run4", "run5", "run0"));
  EXPECT_THAT(names({.names = {"run0", "run5", "run4"}, .limit = 1}), ElementsAre("run4"));
}

TEST_F(ListTest, FiltersCombine) {
  auto runs = enqueue(3, "t1");
  enqueue(2, "t2");
  finish(runs[0], start(runs[0]), RunState::failed);
  finish(runs[1], start(runs[1]));
  int64_t experiment = get("t1/run0").run.experiment_id;
  EXPECT_THAT(names({.tag = "t1"}), ElementsAre("run2", "run1", "run0"));
  EXPECT_THAT(names({.tag = "t1", .states = {RunState::failed}}), ElementsAre("run0"));
  EXPECT_THAT(names({.states = {RunState::failed, RunState::queued}}), ElementsAre("run2", "run0", "run1", "run0"));
  EXPECT_THAT(names({.experiment_id = experiment, .states = {RunState::queued}}), ElementsAre("run2"));
  EXPECT_THAT(names({.cell_key = "cell0"}), ElementsAre("run0", "run0"));
  EXPECT_THAT(names({.experiment_id = experiment, .cell_key = "cell1"}), ElementsAre("run1"));
  EXPECT_THAT(names({.names = {"run0"}, .tag = "t1"}), ElementsAre("run0"));
  EXPECT_THAT(names({.names = {"run0"}, .tag = "t1", .states = {RunState::queued}}), IsEmpty());
  EXPECT_THAT(names({.tag = "ablation/t1", .states = {RunState::failed}}), ElementsAre("run0"));
  EXPECT_THAT(names({.names = {"run0"}, .tag = "ablation/t1"}), ElementsAre("run0"));
  EXPECT_THAT(names({.ids = {runs[0], runs[2], runs[0]}}), ElementsAre("run2", "run0"));
  EXPECT_THAT(names({.ids = {runs[0], runs[2]}, .states = {RunState::queued}, .limit = 1}), ElementsAre("run2"));
  EXPECT_EQ(store_->count_runs({.ids = {runs[0], runs[2]}})->total(), 2);
  EXPECT_EQ(store_->count_runs({.tag = "ablation/t2"})->total(), 2);
}

TEST_F(ListTest, RowsCarryTheLatestAttempt) {
  auto runs = enqueue(2);
  finish(runs[0], start(runs[0]), RunState::failed);
  AttemptRow second = start(runs[0], {"d0"}, RunState::failed);
  auto listed = store_->list_runs({});
  ASSERT_EQ(listed->size(), 2u);
  ASSERT_TRUE(listed->at(0).latest.has_value());
  EXPECT_EQ(listed->at(0).latest->id, second.id);
  EXPECT_EQ(listed->at(0).latest->n, 2);
  EXPECT_EQ(listed->at(0).tag, "t1");
  EXPECT_EQ(listed->at(0).experiment, "ablation");
  EXPECT_EQ(listed->at(0).run.config_toml, "") << "lists do not read configs";
  EXPECT_FALSE(listed->at(1).latest.has_value());
}

TEST_F(ListTest, CountsFollowEveryTransition) {
  auto runs = enqueue(4, "t1");
  enqueue(2, "t2");
  AttemptRow attempt = start(runs[0]);
  finish(runs[1], start(runs[1], {"d1"}), RunState::failed);
  auto all = store_->count_runs({});
  ASSERT_TRUE(all.ok());
  EXPECT_EQ(all->total(), 6);
  EXPECT_EQ((*all)[RunState::running], 1);
  EXPECT_EQ((*all)[RunState::failed], 1);
  EXPECT_EQ((*all)[RunState::queued], 4);
  EXPECT_EQ((*store_->count_runs({.tag = "t1"}))[RunState::queued], 2);
  EXPECT_EQ(store_->count_runs({.states = {RunState::failed}, .limit = 0})->total(), 1);
  EXPECT_EQ(store_->count_runs({.names = {"t1/run0", "t1/run1"}, .limit = 1})->total(), 2)
      << "the limit does not count";
  EXPECT_EQ(store_->count_runs({.cell_key = "cell0"})->total(), 2);
  finish(runs[0], attempt);
  EXPECT_EQ((*store_->count_runs({}))[RunState::completed], 1);
  EXPECT_EQ((*store_->count_runs({}))[RunState::running], 0);
}

TEST_F(ListTest, APlainNameMeansTheNewestExperimentThatHasIt) {
  auto old = enqueue(2, "t1");
  auto recent = enqueue(1, "t2");
  EXPECT_EQ(get("run0").run.id, recent[0]);
  EXPECT_EQ(get("run1").run.id, old[1]);
  EXPECT_EQ(get("t1/run0").run.id, old[0]);
  EXPECT_EQ(get("ablation/t2/run0").run.id, recent[0]);
}

TEST_F(ListTest, AnAmbiguousNameListsItsCandidates) {
  enqueue(1, "t1", 0, "first");
  auto second = enqueue(1, "t1", 0, "second");
  auto run = store_->get_run("t1/run0");
  ASSERT_FALSE(run.ok());
  EXPECT_EQ(run.error().code, ErrorCode::invalid_argument);
  EXPECT_EQ(run.error().message, "\"t1/run0\" means several runs: second/t1/run0, first/t1/run0; give the full name");
  EXPECT_EQ(get("second/t1/run0").run.id, second[0]);
  auto experiment = store_->find_experiment("t1");
  ASSERT_FALSE(experiment.ok());
  EXPECT_EQ(experiment.error().message,
            "the tag \"t1\" means several experiments: second/t1, first/t1; give the full name");
  for (const RunFilter& filter : {RunFilter{.tag = "t1"}, RunFilter{.names = {"run0"}, .tag = "t1"}}) {
    EXPECT_EQ(store_->list_runs(filter).error().message, experiment.error().message);
    EXPECT_EQ(store_->count_runs(filter).error().code, ErrorCode::invalid_argument);
  }
  EXPECT_THAT(names({.tag = "first/t1"}), ElementsAre("run0"));
  EXPECT_EQ(store_->count_runs({.tag = "first/t1"})->total(), 1);
  EXPECT_EQ(store_->find_experiment("first/t1")->name, "first");
}

TEST_F(ListTest, UnknownNamesSayWhatToDo) {
  EXPECT_EQ(store_->find_experiment("").error().message, "there is no experiment yet; `assay enqueue SPEC` makes one");
  enqueue(1);
  EXPECT_EQ(store_->get_run("nope").error().message, "no run is named \"nope\"; `assay ls` shows the names");
  EXPECT_EQ(store_->list_runs({.ids = {99}}).error().message, "there is no run 99");
  EXPECT_THAT(store_->get_run("a/b/c/d").error().message, HasSubstr("too many parts"));
  EXPECT_EQ(store_->get_run_by_id(99).error().message, "there is no run 99");
  EXPECT_EQ(store_->get_experiment(99).error().message, "there is no experiment 99");
}

// What is named and not there is not_found, the same for every way to ask, and says what may be meant.
TEST_F(ListTest, WhatIsNotThereHasASuggestion) {
  enqueue(2, "monday", 0, "expa");
  enqueue(2, "three", 0, "expb");
  const auto tag_error = [&](const std::string& tag) {
    const Error listed = store_->list_runs({.tag = tag}).error();
    EXPECT_EQ(listed.code, ErrorCode::not_found);
    EXPECT_EQ(store_->count_runs({.tag = tag}).error().message, listed.message);
    EXPECT_EQ(store_->list_runs({.names = {"run0"}, .tag = tag}).error().message, listed.message);
    EXPECT_EQ(store_->find_experiment(tag).error().message, listed.message);
    return listed.message;
  };
  EXPECT_EQ(tag_error("mondya"), "no experiment has the tag \"mondya\"; did you mean \"monday\"?");
  EXPECT_EQ(tag_error("expb/thre"), "no experiment has the tag \"expb/thre\"; did you mean \"expb/three\"?");
  EXPECT_EQ(tag_error("quite_else"), "no experiment has the tag \"quite_else\"; there are expb/three, expa/monday");
  EXPECT_EQ(tag_error("expa"),
            "no experiment has the tag \"expa\"; it is the name of an experiment, tagged expa/monday");
  EXPECT_EQ(store_->find_experiment("a/b/c").error().message,
            "\"a/b/c\" has too many parts: a tag is \"tag\" or \"experiment/tag\"");

  const auto run_error = [&](const std::string& name, const std::string& tag = "") {
    const Error listed = store_->list_runs({.names = {name}, .tag = tag}).error();
    EXPECT_EQ(listed.code, ErrorCode::not_found);
    if (tag.empty()) {
      EXPECT_EQ(store_->get_run(name).error().message, listed.message);
    }
    return listed.message;
  };
  EXPECT_EQ(run_error("rnu1"), "no run is named \"rnu1\"; did you mean \"run1\"?");
  EXPECT_EQ(run_error("monday/run2"), "no run is named \"monday/run2\" in expa/monday; did you mean \"run1\"?");
  EXPECT_EQ(run_error("wat", "three"), "no run is named \"wat\" in expb/three; `assay ls` shows the names");
  EXPECT_EQ(run_error("expb/thre/run0"), "no experiment has the tag \"expb/thre\"; did you mean \"expb/three\"?");
  EXPECT_EQ(run_error("expb/three"),
            "no run is named \"expb/three\": it is a tag; `assay ls --tag expb/three` lists its runs");
  EXPECT_EQ(run_error("three"), "no run is named \"three\": it is a tag; `assay ls --tag three` lists its runs");
  EXPECT_EQ(run_error("three/run0", "monday"), "no run is named \"three/run0\" in expa/monday; did you mean \"run0\"?");
}

TEST_F(ListTest, ExperimentsAreListedNewestFirst) {
  enqueue(1, "t1");
  enqueue(1, "t2");
  auto all = store_->list_experiments(0);
  ASSERT_EQ(all->size(), 2u);
  EXPECT_EQ(all->at(0).tag, "t2");
  EXPECT_EQ(all->at(0).spec_text, "");
  EXPECT_EQ(store_->list_experiments(1)->size(), 1u);
  EXPECT_EQ(store_->find_experiment("")->tag, "t2");
  EXPECT_EQ(store_->get_experiment(all->at(1).id)->tag, "t1");
}

}  // namespace
}  // namespace assay
